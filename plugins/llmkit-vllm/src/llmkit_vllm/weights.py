"""How vLLM servers take weights: by methods that llmkit adds to their workers, called through `/collective_rpc`.

A server needs `WORKER_DIRECTORY` on its PYTHONPATH, `--worker-extension-cls WORKER_EXTENSION` and
`VLLM_SERVER_DEV_MODE=1`.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmkit.engines.inference.remote.contract import Link
from llmkit.engines.inference.weight_sync.contract import Parcel, TakingFacts, Update
from llmkit.errors import EngineError, RequestError
from llmkit_vllm.program import WORKER_DIRECTORY, WORKER_EXTENSION

MARGIN_SECONDS = 20.0
"""The phase's own deadline comes first: its message says more than that of a request."""


class VLLMReceiver:
    """Implements `Receiver`."""

    @property
    def transports(self) -> Collection[str]:
        """All of them."""
        return ("shared_memory", "disk", "gloo", "nccl", "cuda_ipc", "adapter")

    def refusal(self, transport: str) -> str:
        """There is no other one."""
        return f"vLLM takes weights by {', '.join(self.transports)}, not by {transport}"

    async def facts(self, link: Link, seconds: float) -> TakingFacts:
        """From the workers."""
        import torch

        answers = await _call(link, "describe", {}, seconds, "asking how weights are kept")
        first = answers[0]
        return TakingFacts(getattr(torch, first["dtype"]), len(answers), first["device"])

    async def connect(self, link: Link, update: Update, group: Mapping[str, Any]) -> None:
        """All workers of the server join."""
        await _call(link, "connect", group, update.seconds, "joining a process group")

    async def begin(self, link: Link, update: Update) -> None:
        """Its layers wait for weights from here on."""
        await _call(link, "begin", {"key": update.key}, update.seconds, "beginning a weight update")

    async def put(self, link: Link, update: Update, parcel: Parcel) -> Sequence[Mapping[str, str]]:
        """Each worker reads all of it and takes its share."""
        message = {**parcel.message, "key": update.key, "fingerprints": bool(parcel.fingerprints)}
        answers = await _call(link, "put", message, update.seconds, "loading weights")
        return [answer["fingerprints"] for answer in answers] if parcel.fingerprints else []

    async def commit(self, link: Link, update: Update) -> None:
        """Layers are complete, and packed weights are those of the new version."""
        message = {"key": update.key, "names": update.names}
        await _call(link, "commit", message, update.seconds, "ending a weight update")

    async def stamp(self, link: Link, version: int, seconds: float) -> None:
        """What `/weight_info` tells; its completions carry no version."""
        body, phase = {"new_version": str(version)}, "stamping a version"
        await link.call("/update_weight_version", body, phase=phase, timeout_seconds=seconds + MARGIN_SECONDS)

    async def abort(self, link: Link, update: Update) -> None:
        """Its layers are whole again, with weights of both versions."""
        await _call(link, "abort", {"key": update.key}, update.seconds, "giving a weight update up")


async def _call(
    link: Link, method: str, message: Mapping[str, Any], seconds: float, phase: str
) -> list[Mapping[str, Any]]:
    """The answers of all workers.

    Raises:
        EngineError: one of them failed, or knows nothing of llmkit.
    """
    body = {"method": f"llmkit_{method}", "args": [json.dumps(message)], "timeout": seconds}
    try:
        answer = await link.call("/collective_rpc", body, phase=phase, timeout_seconds=seconds + MARGIN_SECONDS)
    except RequestError as error:
        raise EngineError(
            f"{error}. A server that takes weights is started with VLLM_SERVER_DEV_MODE=1, "
            f"PYTHONPATH={WORKER_DIRECTORY} and --worker-extension-cls {WORKER_EXTENSION}"
        ) from error
    results = answer.get("results") if isinstance(answer, Mapping) else None
    if not results or not all(isinstance(one, Mapping) for one in results):
        raise EngineError(f"{phase}: server {link.server.index} ({link.server.url}): it answered {answer!r}")
    for one in results:
        if "error" in one:
            raise EngineError(f"{phase}: server {link.server.index} ({link.server.url}): {one['error']}")
    return results
