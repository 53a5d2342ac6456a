"""A run's work in one of its processes: joined to the others, silent unless it is the first."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

from llmkit.config.runs import TrainingRun
from llmkit.distributed.launch import follow_lifeline
from llmkit.distributed.place import find_place
from llmkit.distributed.world import is_loss, joined
from llmkit.errors import LLMKitError, ProcessLostError
from llmkit.models.policy import torch_device


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
