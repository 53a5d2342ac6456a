"""Which of a run's processes this one is, by the environment variables that torchrun sets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from llmkit.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHED = "LLMKIT_LAUNCHED_BY"
"""Set in the processes that `--nproc` starts: the number of the process that started them."""


@dataclass(frozen=True)
class Place:
    """A process among those of its run.

    Attributes:
        rank: its number, from 0, over all machines.
        world_size: how many there are.
        local_rank: its number on its own machine, which is the number of its GPU.
        local_world_size: how many there are on its machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether it is the one that writes and talks."""
        return self.rank == 0


def find_place(environ: Mapping[str, str] | None = None) -> Place:
    """The place that the environment gives this process; one that is alone has rank 0 of 1.

    Raises:
        ConfigError: the variables are no numbers, or say something impossible.
    """
    environ = os.environ if environ is None else environ
    if "RANK" not in environ or "WORLD_SIZE" not in environ:
        return Place()
    if lacking := [name for name in VARIABLES if name not in environ]:
        raise ConfigError(
            f"RANK and WORLD_SIZE are set, and {', '.join(lacking)} not: start the processes with --nproc or torchrun, "
            "or unset them all"
        )
    try:
        place = Place(*(int(environ[name]) for name in VARIABLES[:4]))
    except ValueError:
        values = " ".join(f"{name}={environ[name]}" for name in VARIABLES[:4])
        raise ConfigError(f"{values}: every one must be a whole number, as torchrun sets them") from None
    if not 0 <= place.rank < place.world_size or not 0 <= place.local_rank < place.local_world_size:
        raise ConfigError(f"RANK={place.rank} of WORLD_SIZE={place.world_size}: there is no such process")
    return place


def is_main() -> bool:
    """Whether this process is the one of its run that writes and talks."""
    return os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ
