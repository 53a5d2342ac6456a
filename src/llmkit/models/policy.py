"""The model in training, or one that only samples, on its device and in its compute type."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from llmkit.config.parallel import ParallelConfig
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.distributed.place import find_place
from llmkit.distributed.sharding import Passes, divide
from llmkit.distributed.world import World
from llmkit.errors import ConfigError
from llmkit.models import norms, shorter, tied_embedding
from llmkit.models.head import base_of, output_head
from llmkit.models.loading import load_model
from llmkit.models.logprobs import token_logprobs
from llmkit.models.offloading import offload_activations
from llmkit.models.packed import supports_packing
from llmkit.models.precomputed import PrecomputedLogprobs
from llmkit.models.scoring import TokenLogprobs
from llmkit.types import Batch

T = TypeVar("T")


@dataclass
class Policy:
    """A causal language model and how to run it.

    Attributes:
        model: the model, possibly inside an adapter.
        device: where its parameters lie.
        compute_dtype: float32, or bfloat16 for matrix products under autocast.
        reference: frozen copy of the model that training began with; None for an adapter, whose base model is the
            reference, and for runs that need none.
        passes: runs the model where FSDP2 divides it; None where it runs by itself.
        reference_passes: the same for the reference.
        summed: parameters whose gradients are to be added up over the tensor dimension.
        precomputed: what the reference says, where that was computed before training.
        offloads_activations: keep what the backward pass needs in the memory of the host.
    """

    model: Any
    device: torch.device
    compute_dtype: torch.dtype
    reference: nn.Module | None = None
    passes: Passes | None = None
    reference_passes: Passes | None = None
    summed: list[nn.Parameter] = field(default_factory=list)
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
        self._shorten(self.model)

        def run(model: nn.Module) -> TokenLogprobs:
            return token_logprobs(
                model,
                batch,
                temperature=temperature,
                entropy=entropy,
                mean_logprobs=mean_logprobs,
                loss_scales=loss_scales,
            )

        with self.autocast():
            return _through(self.passes, self.model, run)

    @torch.no_grad()
    def reference_logprobs(self, batch: Batch, *, temperature: float = 1.0) -> Tensor:
        """[N] log-probabilities under the model that training began with."""
        if self.precomputed is not None:
            return self.precomputed.logprobs(batch)

        def run(model: nn.Module) -> TokenLogprobs:
            return token_logprobs(model, batch, temperature=temperature)

        if self.reference is not None:
            self._shorten(self.reference)
            with self.autocast():
                return _through(self.reference_passes, self.reference, run).logprobs
        with self.model.disable_adapter(), self.autocast():
            return _through(self.passes, self.model, run).logprobs

    def divide(self, config: ParallelConfig, world: World) -> None:
        """Divide the model, and the reference, among the processes of the run as its mesh says.

        Raises:
            ConfigError: the model cannot be divided so.
        """
        if world.dimensions.is_sharded and not supports_packing(self.model):
            raise ConfigError(
                "parallel.strategy=fsdp needs a model whose sequences can be packed, and this model, or its adapter, "
                "takes them one at a time; use parallel.strategy=ddp"
            )
        self._prepare(self.model, world)
        # The head is looked at while the weights are still whole.
        output_head(self.model)
        self.passes, self.summed = divide(self.model, base_of(self.model), config, world, self.compute_dtype)
        if self.reference is not None:
            self._prepare(self.reference, world)
            output_head(self.reference)
            reference: nn.Module = self.reference
            self.reference_passes, _ = divide(reference, base_of(reference), config, world, self.compute_dtype)

    def _prepare(self, model: nn.Module, world: World) -> None:
        shorter.prepare(model)
        if world.mesh is not None:
            tied_embedding.undo(model)

    def _shorten(self, model: nn.Module) -> None:
        """A model that only samples, from compiled code of its own, is left as it is; a divided one is prepared."""
        if self.passes is None:
            shorter.prepare(model)

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


def _through(passes: Passes | None, model: nn.Module, run: Callable[[nn.Module], T]) -> T:
    return run(model) if passes is None else passes.once(run)


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
        return _own(next(name for name, there in available.items() if there))
    if not available[config.device]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise ConfigError(f"device.device={config.device}: PyTorch finds no such device here; available: {there}")
    return _own(config.device)


def _own(name: str) -> torch.device:
    """The device of this name; with several processes on a machine, each has the GPU of its own number.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    place = find_place()
    if name != "cuda" or place.world_size == 1:
        return torch.device(name)
    if place.local_world_size > torch.cuda.device_count():
        raise ConfigError(
            f"{place.local_world_size} processes on this machine have {torch.cuda.device_count()} GPUs; start as many "
            "processes as GPUs, or use device.device=cpu"
        )
    return torch.device("cuda", place.local_rank)
