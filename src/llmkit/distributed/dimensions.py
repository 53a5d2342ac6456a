"""How many processes do what: the sizes of a run's mesh, checked before anything starts."""

from dataclasses import dataclass

from llmkit.config.parallel import ParallelConfig
from llmkit.errors import ConfigError


@dataclass(frozen=True)
class Dimensions:
    """Sizes of the mesh; their product is the number of processes.

    Attributes:
        replicate: copies of the weights; with `ddp` every process but those of `tensor` has one.
        shard: processes that a copy is divided among, layer by layer; 1 with `ddp`.
        tensor: processes that each layer's heads are divided among.
        is_sharded: whether FSDP2 holds the weights.
    """

    replicate: int = 1
    shard: int = 1
    tensor: int = 1
    is_sharded: bool = False

    @property
    def data(self) -> int:
        """Processes, or groups of them, that each take a share of a step's rows."""
        return self.replicate * self.shard

    @property
    def world_size(self) -> int:
        """All processes."""
        return self.data * self.tensor

    def describe(self) -> str:
        """In words for people."""
        if self.world_size == 1:
            return "one process"
        names = [f"{self.replicate} x replicate" if self.replicate > 1 else ""]
        names += [f"{self.shard} x shard" if self.is_sharded else "", f"{self.tensor} x tensor" * (self.tensor > 1)]
        kind = "FSDP2" if self.is_sharded else "DDP" if self.data > 1 else "tensor parallel"
        return f"{self.world_size} processes, {kind}: {', '.join(filter(None, names))}"


def find_dimensions(config: ParallelConfig, world_size: int) -> Dimensions:
    """The mesh of `world_size` processes.

    Raises:
        ConfigError: they cannot be arranged so; names the setting.
    """
    asks_for_shards = bool(config.shard or config.replicate or config.cpu_offload)
    is_sharded = config.strategy == "fsdp" or (config.strategy == "auto" and asks_for_shards)
    if asks_for_shards and not is_sharded:
        raise ConfigError(
            "parallel.strategy=ddp keeps the whole model in every process: leave parallel.shard, parallel.replicate "
            "and parallel.cpu_offload unset, or use parallel.strategy=fsdp"
        )
    _check_divides("parallel.tensor", config.tensor, world_size, "processes")
    data = world_size // config.tensor
    if not is_sharded:
        return Dimensions(replicate=data, tensor=config.tensor)
    replicate = config.replicate or (data // config.shard if config.shard and data % config.shard == 0 else 1)
    _check_divides("parallel.replicate", replicate, data, "processes that share rows")
    shard = config.shard or data // replicate
    if replicate * shard != data:
        raise ConfigError(
            f"parallel.replicate={replicate} x parallel.shard={shard} x parallel.tensor={config.tensor} is "
            f"{replicate * shard * config.tensor}, and there are {world_size} processes; leave parallel.shard unset to "
            f"take all that are left"
        )
    return Dimensions(replicate, shard, config.tensor, is_sharded=True)


def check_units(dimensions: Dimensions, setting: str, count: int | None) -> None:
    """Refuse a step with fewer rows than processes that share it.

    Args:
        setting: which key says how many rows a step has.
        count: its value; None is not known.

    Raises:
        ConfigError: names both numbers.
    """
    if count is not None and count < dimensions.data:
        raise ConfigError(
            f"{setting}={count} is less than the {dimensions.data} processes that share each step, so some would have "
            f"nothing to do; raise it to {dimensions.data} or more, or start fewer processes"
        )


def _check_divides(setting: str, size: int, of: int, what: str) -> None:
    if of % size:
        fitting = [str(number) for number in range(1, of + 1) if of % number == 0]
        raise ConfigError(f"{setting}={size} does not divide the {of} {what}; it may be {', '.join(fitting)}")
