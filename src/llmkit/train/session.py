"""What every training story opens and closes: run directory, policy, optimizer, journal, checkpoints."""

import resource
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from llmkit.config.resolve import Resolved
from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.data.counts import RowCounts
from llmkit.engines.training.random_state import get_random_state, seed_everything, set_random_state
from llmkit.engines.training.torch_engine import TorchEngine
from llmkit.errors import CheckpointError, LLMKitError
from llmkit.models.loading import check_vocabulary, load_model, load_on_meta
from llmkit.models.policy import Policy, torch_device
from llmkit.train import run_directory
from llmkit.train.adapting import begin_adapter
from llmkit.train.checkpoints import Checkpoint, CheckpointStore
from llmkit.train.console import note
from llmkit.train.first_rows import Drawn, first_batches
from llmkit.train.inputs import REPORT, Inputs
from llmkit.train.interruption import Interruption
from llmkit.train.invocation import Invocation
from llmkit.train.journal import Journal
from llmkit.train.resuming import check_same_run
from llmkit.train.state import read_state, write_state
from llmkit.train.threads import bound_kernel_caches, set_threads


class Position(Protocol):
    """Something that knows where it stands in the data."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def num_steps(self, num_epochs: float) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Mark:
    """Where the run stood when a step was finished.

    Attributes:
        step: the step.
        num_updates: of the optimizer until then; the weights are that step's as long as there are no more.
        position: in the data.
        random: states of the random number generators.
    """

    step: int
    num_updates: int
    position: dict[str, Any]
    random: dict[str, Any]


class Session:
    """A run in progress. Opens everything on entry; on exit closes it, and saves what an error would have lost.

    Attributes:
        policy: the model in training.
        engine: its optimizer.
        journal: metrics and rollouts.
        start: the last step that is done; 0 for a new run.
        total_steps: the last step of the run.
        interrupted: true once the user asked to stop.
    """

    policy: Policy
    engine: TorchEngine
    journal: Journal
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

    def finish_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a step down, save when it is time to, and stop when asked to.

        Raises:
            RunInterrupted: the user asked to stop; the state is saved.
        """
        self.journal.log(step, metrics)
        self._finished = Mark(step, self.engine.num_updates, self._position.state_dict(), get_random_state())
        every = self.run.checkpoint.every_steps
        last = step == self.total_steps
        if last or self.interrupted or (every and step % every == 0):
            self.save()
        if self.interrupted and not last:
            raise self.interrupted.stop(step, self.directory)

    def save(self) -> None:
        """Write a checkpoint of the last finished step."""
        finished = self._finished
        if finished is None or finished.step == self._saved_step:
            return

        def write(path: Path) -> None:
            self._adapter.save(self.policy.model, path)
            self._inputs.tokenizer.save_pretrained(path)
            trainer = path / "trainer"
            trainer.mkdir()
            set_random_state(finished.random)
            self.engine.save(trainer)
            write_state(trainer, {"step": finished.step, "position": finished.position})

        self._store.save(finished.step, write)
        self._saved_step = finished.step

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
        self.policy = base
        updates = getattr(run.algorithm, "updates_per_step", 1)
        self._adapter = adapter
        self.engine = TorchEngine(base, run.optim, self.total_steps * updates, adapter)
        if checkpoint:
            state = read_state(checkpoint.trainer)
            self._position.load_state_dict(state["position"])
            self.engine.load(checkpoint.trainer)
            self.start = self._saved_step = checkpoint.step

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


def costs(num_tokens: float, seconds: float, counts: RowCounts, device: torch.device) -> dict[str, float]:
    """What a step cost, and what has become of the rows so far: metrics of every algorithm."""
    return {
        "tokens_per_second": num_tokens / seconds,
        "peak_memory_bytes": peak_memory_bytes(device),
        "num_rows_skipped": counts.skipped,
        "num_rows_dropped": counts.dropped + counts.untrained,
        "num_rows_truncated": counts.truncated,
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: of the GPU when there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Stopwatch:
    """Seconds since the last reading."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def read(self) -> float:
        """Seconds since it was made or last read."""
        now = time.perf_counter()
        seconds, self._at = now - self._at, now
        return seconds
