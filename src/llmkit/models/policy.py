"""The model in training, or one that only samples, on its device and in its compute type."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.errors import ConfigError
from llmkit.models import norms
from llmkit.models.loading import load_model
from llmkit.models.logprobs import token_logprobs
from llmkit.models.offloading import offload_activations
from llmkit.models.packed import supports_packing
from llmkit.models.precomputed import PrecomputedLogprobs
from llmkit.models.scoring import TokenLogprobs
from llmkit.types import Batch


@dataclass
class Policy:
    """A causal language model and how to run it.

    Attributes:
        model: the model, possibly inside an adapter.
        device: where its parameters lie.
        compute_dtype: float32, or bfloat16 for matrix products under autocast.
        reference: frozen copy of the model that training began with; None for an adapter, whose base model is the
            reference, and for runs that need none.
        precomputed: what the reference says, where that was computed before training.
        offloads_activations: keep what the backward pass needs in the memory of the host.
    """

    model: Any
    device: torch.device
    compute_dtype: torch.dtype
    reference: nn.Module | None = None
    precomputed: PrecomputedLogprobs | None = None
    offloads_activations: bool = False

    def __post_init__(self) -> None:
        norms.prepare(self.model)

    @property
    def context_length(self) -> int:
        """Most tokens that the model can take."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30

    @property
    def can_share_prompts(self) -> bool:
        """Whether sequences that begin alike can be computed with their beginning there once."""
        return supports_packing(self.model)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Run matrix products in the compute type, and keep activations where they are to be kept."""
        offloading = offload_activations() if self.offloads_activations else nullcontext()
        enabled = self.compute_dtype != torch.float32
        with torch.autocast(self.device.type, self.compute_dtype, enabled=enabled), offloading:
            yield

    def logprobs(
        self,
        batch: Batch,
        *,
        temperature: float = 1.0,
        entropy: Literal["none", "value", "gradient"] = "none",
        mean_logprobs: bool = False,
        loss_scales: Tensor | None = None,
    ) -> TokenLogprobs:
        """Log-probabilities of the supervised tokens, nats, and what else is asked for; see `token_logprobs`."""
        with self.autocast():
            return token_logprobs(
                self.model,
                batch,
                temperature=temperature,
                entropy=entropy,
                mean_logprobs=mean_logprobs,
                loss_scales=loss_scales,
            )

    @torch.no_grad()
    def reference_logprobs(self, batch: Batch, *, temperature: float = 1.0) -> Tensor:
        """[N] log-probabilities under the model that training began with."""
        if self.precomputed is not None:
            return self.precomputed.logprobs(batch)
        if self.reference is not None:
            norms.prepare(self.reference)
            with self.autocast():
                return token_logprobs(self.reference, batch, temperature=temperature).logprobs
        with self.model.disable_adapter(), self.autocast():
            return token_logprobs(self.model, batch, temperature=temperature).logprobs

    def recompute_activations(self) -> None:
        """Recompute activations in the backward pass instead of keeping them.

        Raises:
            ConfigError: the model cannot.
        """
        # transformers is changing the name, and warns of the old one.
        enable = (
            getattr(self.model, "activation_checkpointing_enable", None) or self.model.gradient_checkpointing_enable
        )
        try:
            enable({"use_reentrant": False})
        except ValueError as error:
            raise ConfigError(f"device.gradient_checkpointing=true: {error}") from error


def load_policy(model: ModelConfig, device: DeviceConfig) -> Policy:
    """Load a model onto its device.

    Raises:
        ModelError: the checkpoint cannot be loaded.
        ConfigError: the device is not there.
    """
    place = torch_device(device)
    return Policy(load_model(model).to(place), place, getattr(torch, device.compute_dtype))


def torch_device(config: DeviceConfig) -> torch.device:
    """The device to compute on.

    Raises:
        ConfigError: the device that was asked for is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if config.device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[config.device]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise ConfigError(f"device.device={config.device}: PyTorch finds no such device here; available: {there}")
    return torch.device(config.device)
