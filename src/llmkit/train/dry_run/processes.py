"""What a dry run, which is one process, says of a run in several."""

from typing import Any

from llmkit.distributed.dimensions import find_dimensions
from llmkit.errors import ConfigError
from llmkit.terminal import warn


def tell_of_processes(run: Any, num_processes: int) -> None:
    """Say what the figures are of.

    Raises:
        ConfigError: the processes divide the weights, so that no figure would be theirs.
    """
    dimensions = find_dimensions(run.parallel, num_processes)
    if dimensions.is_sharded or dimensions.tensor > 1:
        raise ConfigError(
            f"--dry-run --nproc {num_processes}: it measures one process with all weights, and "
            f"parallel.strategy={run.parallel.strategy} with parallel.tensor={run.parallel.tensor} divides them; leave "
            "--nproc and parallel out for what a single process needs, or take a few real steps with --max-steps 3"
        )
    warn(
        f"--dry-run --nproc {num_processes}: the figures are of one process. Memory: each of the {num_processes} needs "
        "about as much, and no less for weights, gradients and optimizer; time: of a step that one process does alone"
    )
