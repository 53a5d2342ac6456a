"""Checkpoints of a run: copied while training waits, written while it goes on.

Training waits for the copy alone. The next copy waits until the one before it is on the disk, and so does the end of
the run; whatever writing meets is raised at the next step.
"""

import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from llmkit.adapters.contract import Adapter
from llmkit.distributed.whole import fill
from llmkit.distributed.world import World
from llmkit.engines.training.engine_state import EngineSnapshot
from llmkit.engines.training.torch_engine import TorchEngine
from llmkit.models.policy import Policy
from llmkit.train.checkpoints import CheckpointStore
from llmkit.train.state import Mark, write_state

AVERAGED = "averaged"


class BackgroundWork:
    """One piece of work at a time, beside what the caller does.

    Attributes:
        has_failed: whether a piece of work ended with an error.
    """

    def __init__(self) -> None:
        self.has_failed = False
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before it is done.

        Raises:
            Exception: what the one before it met.
        """
        self.finish()
        # A second Ctrl-C stops at once: what is half written then is not used.
        self._thread = threading.Thread(target=self._run, args=[work], name="checkpoint", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until the work is done.

        Raises:
            Exception: what it met.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what work has met that is done by now; do not wait.

        Raises:
            Exception: that.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised where somebody waits for it
            self._error, self.has_failed = error, True


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, safe from the steps that follow.

    Attributes:
        step: the last one in it.
        engine: optimizer and random state.
        model: what the adapter saves; None in processes that do not write it.
        averaged: the same with the averaged weights; None when they are not saved.
        tokenizer: its files, by name.
        state: everything else, as JSON can hold it.
        is_best: whether it is to be kept as the best one.
    """

    step: int
    engine: EngineSnapshot
    model: nn.Module | None
    averaged: nn.Module | None
    tokenizer: Mapping[str, bytes]
    state: Mapping[str, Any]
    is_best: bool


class Copier:
    """Copies what a checkpoint holds.

    Attributes:
        copies: whether what it gives is safe from the steps that follow; else it is to be written before the next one.
        is_divided: whether the policy's weights are divided among processes.
    """

    def __init__(
        self,
        policy: Policy,
        tokenizer: PreTrainedTokenizerBase,
        world: World,
        blank: nn.Module | None,
        asynchronous: bool,
        *,
        samples_here: bool = True,
    ) -> None:
        """
        Args:
            blank: `skeleton` of the policy's model; None where the model itself is saved, which nothing may change
                meanwhile.
            asynchronous: copy though the model could be saved as it is.
            samples_here: whether this process samples from the weights, or brings them to who does.
        """
        self._policy = policy
        self._tokenizer = tokenizer
        self._world = world
        self._blank = blank
        self.is_divided = world.dimensions.is_sharded or world.dimensions.tensor > 1
        self.copies = asynchronous and blank is not None
        self._samples_here = samples_here
        self._average: nn.Module | None = None
        self._files: dict[str, bytes] | None = None

    def copy(self, engine: TorchEngine, mark: Mark, *, with_average: bool, is_best: bool) -> Snapshot:
        """The state at `mark`; all processes take part."""
        with engine.checkpoint_weights():
            model = self._copy_model(self._blank)
            state = engine.snapshot(copy=self.copies)
        averaged = None
        if with_average:
            if self._average is None and self._blank is not None:
                self._average = copy.deepcopy(self._blank)
            with engine.evaluation_weights():
                averaged = self._copy_model(self._average)
        rest = {"step": mark.step, "position": mark.position, "watches": mark.watches}
        return Snapshot(mark.step, state, model, averaged, self._tokenizer_files(), rest, is_best)

    @cached_property
    def sampling_policy(self) -> Policy:
        """The policy, or one with all of its weights where they are divided; it has those of the last refresh. In a
        process that does not need them it has none. All processes take part when it is first asked for."""
        if not self.is_divided:
            return self._policy
        whole: Any = copy.deepcopy(self._blank)
        whole.to(self._policy.device).eval()
        # Engines look at the weights before they get the first version of them.
        fill(whole, self._policy.model, self._policy.device, keep=self._samples_here)
        return Policy(whole, self._policy.device, self._policy.compute_dtype)

    def refresh_sampling(self) -> None:
        """Give the whole copy the present weights; all processes take part."""
        whole = self.sampling_policy.model
        fill(whole, self._policy.model, self._policy.device, keep=self._samples_here)

    def _copy_model(self, blank: nn.Module | None) -> nn.Module | None:
        if blank is None:
            return self._policy.model if self._world.is_main else None
        if self.is_divided or self._world.is_main:
            fill(blank, self._policy.model, torch.device("cpu"), keep=self._world.is_main)
        return blank if self._world.is_main else None

    def _tokenizer_files(self) -> dict[str, bytes]:
        """Made once: it stays as it is, and is in use while checkpoints are written."""
        if self._files is None:
            with TemporaryDirectory(prefix="llmkit-") as directory:
                self._tokenizer.save_pretrained(directory)
                paths = [path for path in Path(directory).rglob("*") if path.is_file()]
                self._files = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
        return self._files


def write_snapshot(store: CheckpointStore, snapshot: Snapshot, adapter: Adapter, world: World) -> None:
    """Write a checkpoint; every process writes its own part of the optimizer's state, the first one all the rest.

    Raises:
        TrainingError: the disk is full.
    """
    partial = store.partial(snapshot.step)
    if not world.is_main:
        # The first process makes the directory, and says so even when it could not.
        if world.tell_writers(False):
            snapshot.engine.write(partial / "trainer")
        return
    is_told = False

    def write(path: Path) -> None:
        nonlocal is_told
        (path / "trainer").mkdir()
        is_told = world.tell_writers(True)
        snapshot.engine.write(path / "trainer")
        _export(snapshot.model, path, snapshot, adapter)
        if snapshot.averaged is not None:
            _export(snapshot.averaged, path / AVERAGED, snapshot, adapter)
        write_state(path / "trainer", dict(snapshot.state))

    try:
        store.save(snapshot.step, write)
    finally:
        if not is_told:
            world.tell_writers(False)
    if snapshot.is_best:
        store.mark_best(snapshot.step)


def _export(model: nn.Module | None, path: Path, snapshot: Snapshot, adapter: Adapter) -> None:
    """The model in Hugging Face layout."""
    adapter.save(model, path)
    for name, content in snapshot.tokenizer.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
