"""How SGLang servers take weights: from files by `/update_weights_from_disk`, or through a process group."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmkit.engines.inference.remote.contract import Link
from llmkit.engines.inference.weight_sync.contract import Parcel, TakingFacts, Update
from llmkit.engines.inference.weight_sync.threads import in_thread
from llmkit.errors import EngineError, RequestError

MARGIN_SECONDS = 20.0
"""The phase's own deadline comes first: its message says more than that of a request."""
BEGINNING, LOADING, COMMITTING = "beginning a weight update", "loading weights", "ending a weight update"


class SGLangReceiver:
    """Implements `Receiver`."""

    @property
    def transports(self) -> Collection[str]:
        """All that send no pickled objects."""
        return ("shared_memory", "disk", "gloo", "nccl", "adapter")

    def refusal(self, transport: str) -> str:
        """Why not."""
        return (
            f"SGLang takes tensors of another process as pickled objects, which llmkit does not send: {transport} "
            f"is not possible; use one of {', '.join(self.transports)}"
        )

    async def facts(self, link: Link, seconds: float) -> TakingFacts:
        """From its settings; a type of `auto` is what the model's configuration says, which it does not tell."""
        import torch

        phase = "asking how weights are kept"
        said = await link.call("/server_info", phase=phase, method="GET", timeout_seconds=seconds + MARGIN_SECONDS)
        dtype = getattr(torch, str(said.get("dtype")), None)
        workers = int(said.get("tp_size") or 1) * int(said.get("pp_size") or 1)
        return TakingFacts(
            dtype if isinstance(dtype, torch.dtype) else None, workers, str(said.get("device") or "cuda")
        )

    async def connect(self, link: Link, update: Update, group: Mapping[str, Any]) -> None:
        """Its workers come after this process."""
        body = {
            "master_address": group["host"],
            "master_port": group["port"],
            "rank_offset": 1,
            "world_size": group["world_size"],
            "group_name": group["name"],
            "backend": group["backend"],
        }
        await _call(link, "/init_weights_update_group", body, update.seconds, "joining a process group")

    async def begin(self, link: Link, update: Update) -> None:
        """Files are taken in one go at the end; a group needs a session."""
        if update.directory is None:
            await _call(link, "/begin_weight_update", {}, update.seconds, BEGINNING)

    async def put(self, link: Link, update: Update, parcel: Parcel) -> Sequence[Mapping[str, str]]:
        """Of a file, what it holds as this machine reads it: the server reads it at the end, and does not tell."""
        if update.directory is not None:
            return [await in_thread(_read, parcel)] if parcel.fingerprints else []
        tensors = parcel.message["tensors"]
        body = {
            "names": [name for name, _, _ in tensors],
            "dtypes": [dtype for _, dtype, _ in tensors],
            "shapes": [shape for _, _, shape in tensors],
            "group_name": parcel.message["group"],
            "load_format": "flattened_bucket",
            "flush_cache": False,
        }
        await _call(link, "/update_weights_from_distributed", body, update.seconds, LOADING)
        return []

    async def commit(self, link: Link, update: Update) -> None:
        """Read the files, or end the session."""
        if update.directory is None:
            await _call(link, "/end_weight_update", {}, update.seconds, COMMITTING)
            return
        body = {"model_path": str(update.directory), "load_format": "auto"}
        await _call(link, "/update_weights_from_disk", body, update.seconds, LOADING)

    async def stamp(self, link: Link, version: int, seconds: float) -> None:
        """All tokens carry it from here on."""
        body = {"new_version": str(version), "abort_all_requests": False}
        await _call(link, "/update_weight_version", body, seconds, "stamping a version")

    async def abort(self, link: Link, update: Update) -> None:
        """End the session, if one is open."""
        if update.directory is None:
            await _call(link, "/end_weight_update", {}, update.seconds, "giving a weight update up")


async def _call(link: Link, path: str, body: Mapping[str, Any], seconds: float, phase: str) -> None:
    """
    Raises:
        EngineError: the server says that it has failed.
    """
    try:
        answer = await link.call(path, body, phase=phase, timeout_seconds=seconds + MARGIN_SECONDS)
    except RequestError as error:
        raise EngineError(str(error)) from error
    if isinstance(answer, Mapping) and not answer.get("success", True):
        raise EngineError(f"{phase}: server {link.server.index} ({link.server.url}): {answer.get('message')}")


def _read(parcel: Parcel) -> dict[str, str]:
    from safetensors import safe_open

    from llmkit.engines.inference.weight_sync.fingerprints import fingerprint

    with safe_open(parcel.message["path"], framework="pt") as file:
        return {name: fingerprint(file.get_tensor(name)) for name in parcel.names}
