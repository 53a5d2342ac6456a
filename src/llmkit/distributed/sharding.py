"""A model divided among processes: FSDP2 by layers, tensor parallelism within them, or whole in each."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from llmkit.config.parallel import ParallelConfig
from llmkit.distributed.tensor_parallel import divide_layers
from llmkit.distributed.world import World
from llmkit.errors import ConfigError

T = TypeVar("T")


class Passes(nn.Module):
    """Runs whatever is to be run on a model that FSDP2 divides.

    Weights outside the layers (embeddings, last norm, head) belong to this module, so they are whole within `forward`,
    where a loss head may take them as they are.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, run: Callable[[nn.Module], T]) -> T:
        """What `run` makes of the model."""
        return run(self.model)

    def once(self, run: Callable[[nn.Module], T]) -> T:
        """The same from outside. Without gradients nobody else gives the weights back, which may change meanwhile."""
        found = self(run)
        if not torch.is_grad_enabled() and isinstance(self, FSDPModule):
            self.reshard()
        return found


def divide(
    model: nn.Module, base: Any, config: ParallelConfig, world: World, compute_dtype: torch.dtype
) -> tuple[Passes | None, list[nn.Parameter]]:
    """Divide a model as the mesh says, in place.

    Args:
        model: on its device, possibly inside an adapter.
        base: the transformers model within.
        compute_dtype: in which layers' weights travel and compute.

    Returns: what runs it, None when it runs by itself; and parameters whose gradients are to be added up over the
        tensor dimension.

    Raises:
        ConfigError: the model cannot be divided so.
    """
    if world.mesh is None:
        return None, []
    dimensions = world.dimensions
    summed = divide_layers(model, base, world.mesh["tensor"]) if dimensions.tensor > 1 else []
    passes = _divide_by_layers(model, base, config, world, compute_dtype) if dimensions.is_sharded else None
    # FSDP2 puts parameters of its own in their places, so they are found by name.
    parameters = dict(model.named_parameters())
    return passes, [parameters[name] for name in summed]


def _divide_by_layers(
    model: nn.Module, base: Any, config: ParallelConfig, world: World, compute_dtype: torch.dtype
) -> Passes:
    """Divide weights, gradients and optimizer with FSDP2, in place."""
    assert world.mesh is not None
    dimensions = world.dimensions
    mesh = world.mesh["replicate", "shard"] if dimensions.replicate > 1 else world.mesh["shard"]
    offload = CPUOffloadPolicy() if config.cpu_offload and world.mesh.device_type != "cpu" else OffloadPolicy()
    # Norms and embeddings outside the layers stay in full, as under autocast in one process.
    half = None if compute_dtype == torch.float32 else compute_dtype
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    whole = MixedPrecisionPolicy(cast_forward_inputs=False)
    passes = Passes(model)
    try:
        for layer in layers_of(model, base):
            fully_shard(
                layer,
                mesh=mesh,
                reshard_after_forward=config.reshard_after_forward,
                mp_policy=policy if half else whole,
                offload_policy=offload,
            )
        fully_shard(passes, mesh=mesh, mp_policy=whole, offload_policy=offload)
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"parallel.strategy=fsdp cannot divide this model: {error}") from error
    for module in passes.modules():
        if isinstance(module, FSDPModule):
            # Losses are divided by the whole step's total already: gradients are added up, not averaged.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return passes


def layers_of(model: nn.Module, base: Any) -> Iterator[nn.Module]:
    """The layers that are gathered one after another, by the classes that the architecture says stay together."""
    names = set(getattr(base, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in names and any(True for _ in module.parameters()):
            yield module
