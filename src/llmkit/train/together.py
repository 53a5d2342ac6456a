"""A run's work in one of its processes: joined to the others, silent unless it is the first."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from llmkit.config.runs import TrainingRun
from llmkit.distributed.launch import follow_lifeline
from llmkit.distributed.place import find_place
from llmkit.distributed.world import is_loss, joined, world
from llmkit.errors import LLMKitError, ProcessLostError
from llmkit.models.policy import torch_device
from llmkit.runs import run_directory


@contextmanager
def together(run: TrainingRun) -> Iterator[None]:
    """Within it the run's processes know one another.

    Raises:
        ConfigError: they do not fit the mesh, or there are fewer GPUs than processes.
        ProcessLostError: another one has ended before its time.
    """
    follow_lifeline()
    place = find_place()
    with ExitStack() as stack:
        if not place.is_main:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stderr(nowhere))
            stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(joined(run.parallel, torch_device(run.device)))
        try:
            yield
        except Exception as error:
            if place.world_size == 1 or isinstance(error, LLMKitError) or not is_loss(error):
                raise
            raise ProcessLostError(
                "another process of this run has ended or does not answer, so this one cannot go on; its own error is "
                "the one to look at. Go on with --resume"
            ) from error


def open_run_directory(
    command: str, *, output_dir: str | Path | None, name: str, resume: bool
) -> run_directory.RunDirectory:
    """The run's directory, which the first process claims and the others join; see `run_directory.open`.

    Raises:
        CheckpointError: it cannot be used, or a process does not see it.
        TrainingError: there is hardly any space left.
    """
    opened: run_directory.RunDirectory | None = None

    def claim() -> Path:
        nonlocal opened
        opened = run_directory.open(command, output_dir=output_dir, name=name, resume=resume)
        return opened.path

    path = world().on_main(claim)
    with world().agreeing():
        return opened or run_directory.join(path, command, resume=resume)
