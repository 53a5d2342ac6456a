"""What every training story opens and closes: run directory, policy, optimizer, journal, checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from llmkit.config.resolve import Resolved
from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.engines.training.random_state import get_random_state, seed_everything, set_random_state
from llmkit.engines.training.torch_engine import TorchEngine
from llmkit.errors import CheckpointError, LLMKitError
from llmkit.models.loading import check_vocabulary, load_model, load_on_meta
from llmkit.models.policy import Policy, torch_device
from llmkit.train import run_directory
from llmkit.train.adapting import begin_adapter
from llmkit.train.checkpoints import Checkpoint, CheckpointStore
from llmkit.train.console import note, warn
from llmkit.train.first_rows import Drawn, first_batches
from llmkit.train.idle_settings import can_offload, warn_of_idle_optim_settings
from llmkit.train.inputs import REPORT, Inputs
from llmkit.train.interruption import Interruption
from llmkit.train.invocation import Invocation
from llmkit.train.journal import Journal
from llmkit.train.resuming import check_same_run
from llmkit.train.state import Mark, read_state, write_state
from llmkit.train.threads import bound_kernel_caches, set_threads
from llmkit.train.watches import Watches
from llmkit.types import Source

AVERAGED = "averaged"


class Position(Protocol):
    """Something that knows where it stands in the data."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def num_steps(self, num_epochs: float) -> int: ...

    def close(self) -> None: ...


class Session:
    """A run in progress. Opens everything on entry; on exit closes it, and saves what an error would have lost.

    Attributes:
        policy: the model in training.
        engine: its optimizer.
        journal: metrics and rollouts.
        start: the last step that is done; 0 for a new run.
        total_steps: the last step of the run, unless it stops early.
        watches: evaluations, and losses that jump.
        interrupted: true once the user asked to stop.
    """

    policy: Policy
    engine: TorchEngine
    journal: Journal
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

    def __enter__(self) -> Self:
        warn_of_idle_optim_settings(self.run.optim)
        with ExitStack() as stack:
            stack.callback(self._position.close)
            self.interrupted = stack.enter_context(Interruption())
            self.directory = stack.enter_context(self._open_directory())
            self._store = CheckpointStore(
                self.directory.checkpoints,
                keep_last=self.run.checkpoint.keep_last,
                config_hash=self._resolved.semantic_hash(),
                config=self._resolved.masked(),
            )
            checkpoint = self._find_checkpoint()
            self.directory.write_start(self._resolved.to_yaml())
            self._inputs.errors.move_report(self.directory.path / REPORT)
            self.watches = Watches(self.run, self.run.eval, self.directory.path)
            self._load(checkpoint)
            self.journal = stack.enter_context(
                Journal(
                    self.directory,
                    self.run.trackers,
                    self._resolved.masked(),
                    total_steps=self.total_steps,
                    resume_from=checkpoint.step if checkpoint else None,
                )
            )
            stack.push(self._save_on_error)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def log_start(self, metrics: Mapping[str, float]) -> None:
        """Write down what was measured before training.

        Raises:
            ConfigError: the metric to watch is not among it.
        """
        self.watches.evaluations.check(metrics)
        self.journal.log(0, metrics)

    def steps(self) -> Iterator[int]:
        """The steps to take; ends before the last one when evaluations stop improving."""
        for step in range(self.start + 1, self.total_steps + 1):
            yield step
            if self.watches.evaluations.is_exhausted:
                return

    def watch_loss(self, step: int, loss: float, sources: Sequence[Source]) -> None:
        """Tell of a loss that jumps, and of the rows that it is of."""
        self.watches.spikes.see(step, loss, sources)

    def finish_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a step down, save when it is time to, and stop when asked to.

        Raises:
            RunInterrupted: the user asked to stop; the state is saved.
        """
        while self.engine.skipped:
            warn(f"step {step} was left out: {self.engine.skipped.pop(0)}")
        if self.run.optim.on_nonfinite == "skip":
            metrics = {**metrics, "num_steps_skipped": self.engine.num_skipped}
        self.journal.log(step, metrics)
        evaluations = self.watches.evaluations
        is_best = evaluations.see(step, metrics) and evaluations.keeps_best
        self._finished = self._mark(step)
        every = self.run.checkpoint.every_steps
        last = step == self.total_steps or evaluations.is_exhausted
        if last or is_best or self.interrupted or (every and step % every == 0):
            self.save()
        if is_best:
            self._store.mark_best(step)
        if evaluations.is_exhausted:
            note(evaluations.describe_stop(step))
        if self.interrupted and not last:
            raise self.interrupted.stop(step, self.directory)

    @property
    def last_step(self) -> int:
        """The last step that is done."""
        return self._finished.step if self._finished else self.start

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint of the best evaluation, when the run keeps it."""
        best = self._store.best if self.watches.evaluations.keeps_best else None
        return None if best is None else self.directory.checkpoints / f"step-{best}"

    def save(self) -> None:
        """Write a checkpoint of the last finished step."""
        finished = self._finished
        if finished is None or finished.step == self._saved_step:
            return

        def write(path: Path) -> None:
            trainer = path / "trainer"
            trainer.mkdir()
            set_random_state(finished.random)
            with self.engine.checkpoint_weights():
                self._export(path)
                self.engine.save(trainer)
            if self.run.optim.export_ema:
                with self.engine.evaluation_weights():
                    self._export(path / AVERAGED)
            write_state(trainer, {"step": finished.step, "position": finished.position, "watches": finished.watches})

        self._store.save(finished.step, write)
        self._saved_step = finished.step

    def _export(self, path: Path) -> None:
        """The model as it is, in Hugging Face layout."""
        self._adapter.save(self.policy.model, path)
        self._inputs.tokenizer.save_pretrained(path)

    def _mark(self, step: int) -> Mark:
        num_updates, position = self.engine.num_updates, self._position.state_dict()
        return Mark(step, num_updates, position, get_random_state(), self.watches.state_dict())

    def evaluates_at(self, step: int) -> bool:
        """Whether held-out rows are measured after `step`: first, last, and every `eval.every_steps`."""
        every = self.run.eval.every_steps
        return step in (0, self.total_steps) or bool(every and step % every == 0)

    def _open_directory(self) -> run_directory.RunDirectory:
        return run_directory.open(
            self._command, output_dir=self.run.output_dir, name=self._invocation.name, resume=self._invocation.resume
        )

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
        bound_kernel_caches()
        device = torch_device(run.device)
        set_threads(run.device, device)
        data, draw = self._position, None
        if isinstance(data, Drawn):
            limit = run.batch.tokens_per_micro_batch
            draw = partial(first_batches, data, tokens_per_micro_batch=limit, device=device)
        adapter = begin_adapter(run, self.total_steps, draw)
        adapter.check(load_on_meta(run.model))
        model = load_model(run.model)
        check_vocabulary(model, self._inputs.tokenizer, run.model)
        seed_everything(run.seed)
        base = Policy(model.to(device), device, getattr(torch, run.device.compute_dtype))
        base.model = adapter.restore(model, checkpoint.path) if checkpoint else adapter.attach(model)
        if self._with_reference and not adapter.facts.keeps_base:
            base.reference = load_model(run.model).to(device).requires_grad_(False)
        if run.device.gradient_checkpointing:
            base.recompute_activations()
        if run.device.offload_activations:
            base.offloads_activations = can_offload(device)
        self.policy = base
        updates = getattr(run.algorithm, "updates_per_step", 1)
        self._adapter = adapter
        self.engine = TorchEngine(base, run.optim, self.total_steps * updates, adapter)
        if checkpoint:
            state = read_state(checkpoint.trainer)
            self._position.load_state_dict(state["position"])
            self.engine.load(checkpoint.trainer)
            self.start = self._saved_step = checkpoint.step
            self.watches.load_state_dict(state["watches"], self.start)
            if self.watches.evaluations.keeps_best and self.watches.evaluations.best_step:
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
        if self.engine.num_updates == finished.num_updates:
            self.save()
            note(f"{self.directory.path}: saved after step {finished.step}; mend the cause and use --resume")
        else:
            # The weights are ahead of the last finished step: a checkpoint of it would be of neither.
            newest = f"the checkpoint of step {self._saved_step}" if self._saved_step else "the beginning"
            note(f"{self.directory.path}: step {finished.step + 1} was half done; --resume goes on from {newest}")
