"""The steps that a run has finished, and what becomes of them: checkpoints, also when the run fails."""

from functools import partial
from pathlib import Path
from traceback import clear_frames
from types import TracebackType

from llmkit.adapters.contract import Adapter
from llmkit.distributed.world import world
from llmkit.engines.training.random_state import set_random_state
from llmkit.engines.training.torch_engine import TorchEngine
from llmkit.errors import LLMKitError, OutOfMemory, ProcessLostError, RunInterrupted
from llmkit.memory import is_out_of_memory
from llmkit.terminal import note
from llmkit.train.checkpoints import CheckpointStore
from llmkit.train.saving import BackgroundWork, Copier, write_snapshot
from llmkit.train.state import Mark

SECONDS_TO_AGREE = 10.0
"""How long a process that has failed waits for the others to fail alike."""


class FinishedSteps:
    """Knows the last step that is done, and saves it when asked to, or when an error would lose it."""

    def __init__(
        self,
        store: CheckpointStore,
        engine: TorchEngine,
        copier: Copier,
        adapter: Adapter,
        directory: Path,
        *,
        start: int,
        with_average: bool,
    ) -> None:
        """
        Args:
            directory: of the run, for messages.
            start: the step that the run goes on from, which is saved; 0 for a new run.
            with_average: save the averaged weights too.
        """
        self._store, self._engine, self._copier, self._adapter = store, engine, copier, adapter
        self._directory = directory
        self._with_average = with_average
        self._world = world()
        self._work = BackgroundWork()
        self._finished: Mark | None = None
        self._start = self._saved_step = start

    @property
    def last(self) -> int:
        """The last step that is done."""
        return self._finished.step if self._finished else self._start

    def add(self, mark: Mark) -> None:
        """A step is done."""
        self._finished = mark

    def check(self) -> None:
        """Raise what writing has met that is done by now.

        Raises:
            Exception: that.
        """
        self._work.check()

    def save(self, *, is_best: bool = False) -> None:
        """Copy what the last finished step has come to, and begin to write a checkpoint of it."""
        finished = self._finished
        if finished is None or finished.step == self._saved_step:
            return
        with self._world.agreeing():
            self._work.finish()
        set_random_state(finished.random)
        snapshot = self._copier.copy(self._engine, finished, with_average=self._with_average, is_best=is_best)
        work = partial(write_snapshot, self._store, snapshot, self._adapter, self._world)
        if self._copier.copies:
            self._work.start(work)
        else:
            with self._world.agreeing():
                work()
        self._saved_step = finished.step

    def save_on_error(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A run that fails, in a reward for example, keeps the steps that it has finished."""
        finished = self._finished
        if not isinstance(error, LLMKitError) or finished is None or finished.step == self._saved_step:
            return
        if self._work.has_failed:
            return  # the error says what became of the newest checkpoint
        if isinstance(error, ProcessLostError) or not self._world.all_arrive("failed", SECONDS_TO_AGREE):
            note(f"{self._directory}: not all processes are there to save; --resume goes on from {self._newest()}")
        elif self._engine.num_updates == finished.num_updates:
            self._engine.discard()
            if isinstance(error, OutOfMemory):
                clear_frames(trace)  # what the step had computed is held by them
            self._save_what_is_left(finished.step)
        else:
            # The weights are ahead of the last finished step: a checkpoint of it would be of neither.
            note(f"{self._directory}: step {finished.step + 1} was half done; --resume goes on from {self._newest()}")

    def finish_saving(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is being written is finished, unless the user wants to stop at once or nobody would finish it."""
        if error is None or isinstance(error, RunInterrupted):
            with self._world.agreeing():
                self._work.finish()
        elif isinstance(error, Exception) and not isinstance(error, ProcessLostError):
            self._work.finish()

    def _save_what_is_left(self, step: int) -> None:
        try:
            self.save()
        except Exception as failure:
            if not is_out_of_memory(failure):
                raise
            # The error that ends the run is the one to show.
            note(f"{self._directory}: step {step} could not be saved: {failure}")
            return
        note(f"{self._directory}: saved after step {step}; mend the cause and use --resume")

    def _newest(self) -> str:
        return f"the checkpoint of step {self._saved_step}" if self._saved_step else "the beginning"
