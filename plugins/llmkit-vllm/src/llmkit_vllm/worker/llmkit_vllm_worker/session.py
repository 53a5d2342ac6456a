"""One weight update in a worker: begin, put, commit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmkit_vllm_worker.fingerprints import fingerprint
from llmkit_vllm_worker.packed_layers import PackedLayers


class WeightSession:
    """Takes tensors under the names of a checkpoint and gives them to the model, layer by layer as they come."""

    def __init__(self, model_runner: Any, key: str) -> None:
        """Args:
        key: what the sender calls this update; messages of another one are refused.
        """
        from vllm.model_executor.model_loader import reload  # pyright: ignore[reportMissingImports]

        self.key = key
        self._model_runner = model_runner
        self._model: nn.Module = model_runner.get_model()
        self._packed = PackedLayers(self._model)
        self._sent: set[str] = set()
        self._loaded: set[str] = set()
        self._wanted = _weight_names(model_runner, self._model)
        reload.initialize_layerwise_reload(self._model)

    @torch.no_grad()
    def put(self, tensors: Iterable[tuple[str, Tensor]], *, fingerprints: bool) -> Mapping[str, str]:
        """Load tensors; returns the fingerprint of each as it arrived, where asked for."""
        arrived = dict(tensors)
        found = {name: fingerprint(tensor) for name, tensor in arrived.items()} if fingerprints else {}
        loaded: set[str] | None = self._model.load_weights(arrived.items())  # type: ignore[operator]
        self._sent |= arrived.keys()
        self._loaded |= loaded or set()
        return found

    @torch.no_grad()
    def commit(self, names: Sequence[str]) -> int:
        """End the update; returns how many packed weights were made anew.

        Args:
            names: of all tensors of the update.

        Raises:
            RuntimeError: some of them have not come, or the model has weights that none of them is for.
        """
        missing = sorted(set(names) - self._sent)
        unfed = sorted(self._wanted - self._loaded) if self._loaded else []
        self._finalize()
        if missing or unfed:
            what = f"of {len(names)} tensors {len(missing)} have not come" if missing else "weights got nothing"
            raise RuntimeError(f"{what}: {', '.join((missing or unfed)[:3])}")
        renewed = self._packed.renew()
        self._forget_derived()
        return renewed

    @torch.no_grad()
    def abort(self) -> None:
        """Leave the model whole in form; its weights are then of both versions."""
        self._finalize()

    def _finalize(self) -> None:
        from vllm.model_executor.model_loader import reload  # pyright: ignore[reportMissingImports]

        reload.finalize_layerwise_reload(self._model, self._model_runner.model_config)

    def _forget_derived(self) -> None:
        """What was computed from the weights of before."""
        self._model_runner.reset_lora_state()
        self._model_runner.reset_encoder_cache()
        self._model_runner.reset_mm_cache()


def _weight_names(model_runner: Any, model: nn.Module) -> set[str]:
    """Names of the weights that a checkpoint has something for; quantised layers name theirs in their own way."""
    if model_runner.model_config.quantization is not None:
        return set()
    # A head that shares the embedding's weight is not among them, which is only so before a reload begins.
    return {name.replace(".base_layer.", ".") for name, _ in model.named_parameters()}
