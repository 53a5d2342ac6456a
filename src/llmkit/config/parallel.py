"""How a run is divided among processes."""

from typing import Literal

from pydantic import Field

from llmkit.config.section import Section


class ParallelConfig(Section):
    """How a run is divided among processes. It changes memory and speed, the result by rounding alone.

    Processes form a mesh of `replicate` x `shard` x `tensor`; each step's rows are divided among the first two.
    """

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """`ddp` keeps the whole model in every process; `fsdp` divides weights, gradients and optimizer among them (FSDP2).
    `auto` is `fsdp` when `shard`, `replicate` or `cpu_offload` is set, else `ddp`."""
    shard: int | None = Field(None, ge=1)
    """Processes that one copy of the weights is divided among with `fsdp`; unset takes all that the others leave."""
    replicate: int | None = Field(None, ge=1)
    """Copies of the divided weights with `fsdp` (HSDP): one per node, for example. Unset is 1."""
    tensor: int = Field(1, ge=1)
    """Processes that each layer's attention heads and MLP are divided among (tensor parallel), side by side on a
    node."""
    cpu_offload: bool = False
    """Keep weights and optimizer in the CPU's memory with `fsdp`, and bring them to the GPU a layer at a time."""
    reshard_after_forward: bool = True
    """Give up gathered weights after the forward pass with `fsdp`, and gather them again for the backward pass: less
    memory, half as much traffic again."""
    timeout_seconds: float = Field(1800.0, gt=0)
    """How long a process waits for the others before the run ends with an error."""
