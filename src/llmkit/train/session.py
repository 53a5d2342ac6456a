"""What every training story opens and closes: run directory, policy, optimizer, journal, checkpoints."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llmkit.config.resolve import Resolved
from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.distributed.world import world
from llmkit.engines.training.random_state import get_random_state
from llmkit.engines.training.torch_engine import TorchEngine
from llmkit.models.policy import Policy
from llmkit.runs import run_directory
from llmkit.terminal import note, warn
from llmkit.train.checkpoints import Checkpoint, CheckpointStore
from llmkit.train.finished_steps import FinishedSteps
from llmkit.train.first_rows import Drawn
from llmkit.train.idle_settings import warn_of_idle_optim_settings
from llmkit.train.inputs import REPORT, Inputs
from llmkit.train.interruption import Interruption
from llmkit.train.invocation import Invocation
from llmkit.train.journal import Journal, SilentJournal
from llmkit.train.loading import load_policy
from llmkit.train.memory_settings import advising
from llmkit.train.profiling import profiling
from llmkit.train.resuming import find_checkpoint
from llmkit.train.saving import Copier
from llmkit.train.server_engines import asks_servers
from llmkit.train.state import Mark, Position, read_state
from llmkit.train.together import open_run_directory
from llmkit.train.watches import Watches
from llmkit.types import Source


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
        self._world = world()

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
            stack.push(self._finished.finish_saving)
            stack.push(self._finished.save_on_error)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _begin(self) -> int | None:
        """What the first process does for all: write down what starts here; returns the step to go on from."""
        checkpoint = None
        if self._invocation.resume:
            checkpoint = find_checkpoint(self._store, self._resolved, self.directory.path, self.total_steps)
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
            self._finished.check()
            self.journal.log(step, metrics)
        evaluations = self.watches.evaluations
        is_best = evaluations.see(step, metrics) and evaluations.keeps_best
        self._finished.add(self._mark(step))
        every = self.run.checkpoint.every_steps
        last = step == self.total_steps or evaluations.is_exhausted
        if last or is_best or is_interrupted or (every and step % every == 0):
            self._finished.save(is_best=is_best)
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
        return self._finished.last

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint of the best evaluation, when the run keeps it."""
        best = self._store.best if self.watches.evaluations.keeps_best else None
        return None if best is None else self.directory.checkpoints / f"step-{best}"

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

    def _load(self, checkpoint: Checkpoint | None) -> None:
        run = self.run
        data = self._position if isinstance(self._position, Drawn) else None
        self.policy, adapter, blank = load_policy(
            run,
            self._inputs.tokenizer,
            data,
            total_steps=self.total_steps,
            with_reference=self._with_reference,
            directory=checkpoint.path if checkpoint else None,
        )
        # Servers get their weights from the first process, whoever asks them.
        samples_here = self._world.is_main or not (isinstance(run, GRPORun) and asks_servers(run))
        self._copier = Copier(
            self.policy,
            self._inputs.tokenizer,
            self._world,
            blank,
            run.checkpoint.asynchronous,
            samples_here=samples_here,
        )
        updates = getattr(run.algorithm, "updates_per_step", 1)
        self.engine = TorchEngine(self.policy, run.optim, self.total_steps * updates, adapter)
        if checkpoint:
            state = read_state(checkpoint.trainer)
            self._position.load_state_dict(state["position"])
            self.engine.load(checkpoint.trainer)
            self.start = checkpoint.step
            self.watches.load_state_dict(state["watches"], self.start)
            if self._world.is_main and self.watches.evaluations.keeps_best and self.watches.evaluations.best_step:
                self._store.mark_best(self.watches.evaluations.best_step)
        else:
            self.watches.spikes.forget_after(0)
        self._finished = FinishedSteps(
            self._store,
            self.engine,
            self._copier,
            adapter,
            self.directory.path,
            start=self.start,
            with_average=run.optim.export_ema,
        )
