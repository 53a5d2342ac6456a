"""What every training story opens and closes: run directory, policy, optimizer, journal, checkpoints."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from traceback import clear_frames
from types import TracebackType
from typing import Any, Self

from llmkit.config.resolve import Resolved
from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.distributed.world import world
from llmkit.engines.training.random_state import get_random_state, set_random_state
from llmkit.engines.training.torch_engine import TorchEngine
from llmkit.errors import CheckpointError, LLMKitError, OutOfMemory, ProcessLostError, RunInterrupted
from llmkit.memory import is_out_of_memory
from llmkit.models.policy import Policy
from llmkit.runs import run_directory
from llmkit.terminal import note, warn
from llmkit.train.checkpoints import Checkpoint, CheckpointStore
from llmkit.train.first_rows import Drawn
from llmkit.train.idle_settings import warn_of_idle_optim_settings
from llmkit.train.inputs import REPORT, Inputs
from llmkit.train.interruption import Interruption
from llmkit.train.invocation import Invocation
from llmkit.train.journal import Journal, SilentJournal
from llmkit.train.loading import load_policy
from llmkit.train.memory_settings import advising
from llmkit.train.profiling import profiling
from llmkit.train.resuming import check_same_run
from llmkit.train.saving import BackgroundWork, Copier, write_snapshot
from llmkit.train.state import Mark, Position, read_state
from llmkit.train.together import open_run_directory
from llmkit.train.watches import Watches
from llmkit.types import Source

SECONDS_TO_AGREE = 10.0
"""How long a process that has failed waits for the others to fail alike."""


class Session:
    """A run in progress. Opens everything on entry; on exit closes it, and saves what an error would have lost.

    Attributes:
        policy: the model in training.
        engine: its optimizer.
        journal: metrics and rollouts; that of the first process writes them.
        start: the last step that is done; 0 for a new run.
        total_steps: the last step of the run, unless it stops early.
        watches: evaluations, and losses that jump.
        interrupted: true once the user asked to stop.
    """

    policy: Policy
    engine: TorchEngine
    journal: Journal | SilentJournal
    watches: Watches
    interrupted: Interruption

    def __init__(
        self,
        resolved: Resolved[Any],
        invocation: Invocation,
        inputs: Inputs,
        position: Position,
        *,
        command: str,
        with_reference: bool = False,
    ) -> None:
        """
        Args:
            inputs: tokenizer and data.
            position: where the run stands in its data; saved and restored with each checkpoint.
            command: `train/sft` and the like.
            with_reference: keep the model that training began with.
        """
        self.run: SFTRun | DPORun | GRPORun = resolved.run
        self._resolved = resolved
        self._invocation = invocation
        self._inputs = inputs
        self._position = position
        self._command = command
        self._with_reference = with_reference
        self.total_steps = resolved.run.max_steps or position.num_steps(resolved.run.num_epochs)
        self.start = 0
        self._stack = ExitStack()
        self._finished: Mark | None = None
        self._saved_step = 0
        self._world = world()
        self._saving = BackgroundWork()

    def __enter__(self) -> Self:
        warn_of_idle_optim_settings(self.run.optim)
        with ExitStack() as stack:
            stack.enter_context(advising(self.run))
            stack.callback(self._position.close)
            self.interrupted = stack.enter_context(Interruption())
            self.directory = stack.enter_context(self._open_directory())
            self._store = CheckpointStore(
                self.directory.checkpoints,
                keep_last=self.run.checkpoint.keep_last,
                config_hash=self._resolved.semantic_hash(),
                config=self._resolved.masked(),
            )
            step = self._world.on_main(self._begin)
            checkpoint = None if step is None else self._store.load(step, check=False)
            self.watches = Watches(self.run, self.run.eval, self.directory.path, is_main=self._world.is_main)
            with self._world.agreeing():
                self._load(checkpoint)
            with self._world.agreeing():
                self.journal = (
                    stack.enter_context(self._open_journal(checkpoint)) if self._world.is_main else SilentJournal()
                )
            stack.push(self._finish_saving)
            stack.push(self._save_on_error)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _begin(self) -> int | None:
        """What the first process does for all: write down what starts here; returns the step to go on from."""
        checkpoint = self._find_checkpoint()
        self.directory.write_start(self._resolved.to_yaml())
        self._inputs.errors.move_report(self.directory.path / REPORT)
        return checkpoint.step if checkpoint else None

    def _open_journal(self, checkpoint: Checkpoint | None) -> Journal:
        return Journal(
            self.directory,
            self.run.trackers,
            self._resolved.masked(),
            total_steps=self.total_steps,
            resume_from=checkpoint.step if checkpoint else None,
        )

    def log_start(self, metrics: Mapping[str, float]) -> None:
        """Write down what was measured before training.

        Raises:
            ConfigError: the metric to watch is not among it.
        """
        self.watches.evaluations.check(metrics)
        with self._world.agreeing():
            self.journal.log(0, metrics)

    def steps(self) -> Iterator[int]:
        """The steps to take; ends before the last one when evaluations stop improving."""
        to_come = self.total_steps - self.start
        with profiling(self.directory.path, self._invocation.profile_steps, to_come) as profiler:
            for step in range(self.start + 1, self.total_steps + 1):
                yield step
                if profiler is not None:
                    profiler.step()
                if self.watches.evaluations.is_exhausted:
                    return

    def watch_loss(self, step: int, loss: float, sources: Sequence[Source]) -> None:
        """Tell of a loss that jumps, and of the rows that it is of."""
        everywhere = [source for share in self._world.gather_shares(list(sources)) for source in share]
        with self._world.agreeing():
            self.watches.spikes.see(step, loss, everywhere)

    def finish_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a step down, save when it is time to, and stop when asked to.

        Raises:
            RunInterrupted: the user asked to stop; the state is saved.
        """
        while self.engine.skipped:
            warn(f"step {step} was left out: {self.engine.skipped.pop(0)}")
        if self.run.optim.on_nonfinite == "skip":
            metrics = {**metrics, "num_steps_skipped": self.engine.num_skipped}
        metrics, is_interrupted = self._compare(metrics)
        with self._world.agreeing():
            self._saving.check()
            self.journal.log(step, metrics)
        evaluations = self.watches.evaluations
        is_best = evaluations.see(step, metrics) and evaluations.keeps_best
        self._finished = self._mark(step)
        every = self.run.checkpoint.every_steps
        last = step == self.total_steps or evaluations.is_exhausted
        if last or is_best or is_interrupted or (every and step % every == 0):
            self.save(is_best=is_best)
        if evaluations.is_exhausted:
            note(evaluations.describe_stop(step))
        if is_interrupted and not last:
            raise self.interrupted.stop(step, self.directory)

    @property
    def sampling_policy(self) -> Policy:
        """What an engine in this process samples from: the policy itself, or a whole copy where it is divided."""
        return self._copier.sampling_policy

    @property
    def refresh_sampling(self) -> Callable[[], None] | None:
        """Brings that copy up to date; None where there is none."""
        return self._copier.refresh_sampling if self._copier.is_divided else None

    def _compare(self, metrics: Mapping[str, float]) -> tuple[Mapping[str, float], bool]:
        """The first process's metrics, which all decide by, and whether any process was asked to stop."""
        found = self._world.gather((metrics, bool(self.interrupted)))
        return found[0][0], any(interrupted for _, interrupted in found)

    @property
    def last_step(self) -> int:
        """The last step that is done."""
        return self._finished.step if self._finished else self.start

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint of the best evaluation, when the run keeps it."""
        best = self._store.best if self.watches.evaluations.keeps_best else None
        return None if best is None else self.directory.checkpoints / f"step-{best}"

    def save(self, *, is_best: bool = False) -> None:
        """Copy what the last finished step has come to, and begin to write a checkpoint of it."""
        finished = self._finished
        if finished is None or finished.step == self._saved_step:
            return
        with self._world.agreeing():
            self._saving.finish()
        set_random_state(finished.random)
        snapshot = self._copier.copy(self.engine, finished, with_average=self.run.optim.export_ema, is_best=is_best)
        work = partial(write_snapshot, self._store, snapshot, self._adapter, self._world)
        if self._copier.copies:
            self._saving.start(work)
        else:
            with self._world.agreeing():
                work()
        self._saved_step = finished.step

    def _mark(self, step: int) -> Mark:
        num_updates, position = self.engine.num_updates, self._position.state_dict()
        return Mark(step, num_updates, position, get_random_state(), self.watches.state_dict())

    def evaluates_at(self, step: int) -> bool:
        """Whether held-out rows are measured after `step`: first, last, and every `eval.every_steps`."""
        every = self.run.eval.every_steps
        return step in (0, self.total_steps) or bool(every and step % every == 0)

    def _open_directory(self) -> run_directory.RunDirectory:
        name, resume = self._invocation.name, self._invocation.resume
        return open_run_directory(self._command, output_dir=self.run.output_dir, name=name, resume=resume)

    def _find_checkpoint(self) -> Checkpoint | None:
        if not self._invocation.resume:
            return None
        checkpoint = self._store.latest()
        if checkpoint is None:
            note(f"{self.directory.path}: no checkpoint yet, so the run starts at the beginning")
            return None
        check_same_run(checkpoint, self._resolved)
        if checkpoint.step >= self.total_steps:
            raise CheckpointError(
                f"{checkpoint.path}: all {self.total_steps} steps of this run are done; raise max_steps to go on"
            )
        note(f"Resuming {self.directory.path} after step {checkpoint.step} of {self.total_steps}")
        return checkpoint

    def _load(self, checkpoint: Checkpoint | None) -> None:
        run = self.run
        data = self._position if isinstance(self._position, Drawn) else None
        self.policy, self._adapter, blank = load_policy(
            run,
            self._inputs.tokenizer,
            data,
            total_steps=self.total_steps,
            with_reference=self._with_reference,
            directory=checkpoint.path if checkpoint else None,
        )
        self._copier = Copier(self.policy, self._inputs.tokenizer, self._world, blank, run.checkpoint.asynchronous)
        updates = getattr(run.algorithm, "updates_per_step", 1)
        self.engine = TorchEngine(self.policy, run.optim, self.total_steps * updates, self._adapter)
        if checkpoint:
            state = read_state(checkpoint.trainer)
            self._position.load_state_dict(state["position"])
            self.engine.load(checkpoint.trainer)
            self.start = self._saved_step = checkpoint.step
            self.watches.load_state_dict(state["watches"], self.start)
            if self._world.is_main and self.watches.evaluations.keeps_best and self.watches.evaluations.best_step:
                self._store.mark_best(self.watches.evaluations.best_step)
        else:
            self.watches.spikes.forget_after(0)

    def _save_on_error(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A run that fails, in a reward for example, keeps the steps that it has finished."""
        finished = self._finished
        if not isinstance(error, LLMKitError) or finished is None or finished.step == self._saved_step:
            return
        if self._saving.has_failed:
            return  # the error says what became of the newest checkpoint
        if isinstance(error, ProcessLostError) or not self._world.all_arrive("failed", SECONDS_TO_AGREE):
            newest = f"the checkpoint of step {self._saved_step}" if self._saved_step else "the beginning"
            note(f"{self.directory.path}: not all processes are there to save; --resume goes on from {newest}")
        elif self.engine.num_updates == finished.num_updates:
            self.engine.discard()
            if isinstance(error, OutOfMemory):
                clear_frames(trace)  # what the step had computed is held by them
            try:
                self.save()
            except Exception as failure:
                if not is_out_of_memory(failure):
                    raise
                # The error that ends the run is the one to show.
                note(f"{self.directory.path}: step {finished.step} could not be saved: {failure}")
                return
            note(f"{self.directory.path}: saved after step {finished.step}; mend the cause and use --resume")
        else:
            # The weights are ahead of the last finished step: a checkpoint of it would be of neither.
            newest = f"the checkpoint of step {self._saved_step}" if self._saved_step else "the beginning"
            note(f"{self.directory.path}: step {finished.step + 1} was half done; --resume goes on from {newest}")

    def _finish_saving(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is being written is finished, unless the user wants to stop at once or nobody would finish it."""
        if error is None or isinstance(error, RunInterrupted):
            with self._world.agreeing():
                self._saving.finish()
        elif isinstance(error, Exception) and not isinstance(error, ProcessLostError):
            self._saving.finish()
