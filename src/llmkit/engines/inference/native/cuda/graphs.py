"""Steps that only draw, recorded once for each batch size and replayed: one launch for all of their kernels."""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmkit.engines.inference.native.cuda.attention import Places
from llmkit.engines.inference.native.cuda.inputs import slots
from llmkit.engines.inference.native.packed_runner import ModelInputs
from llmkit.engines.inference.native.runner import BLOCK_SIZE, Step

Run = Callable[[ModelInputs, Places], Tensor]


Work = Callable[[], None]
Record = Callable[[Work], Work]
"""Makes of work on tensors that stay where they are what does it again at every call."""


def batch_sizes(largest: int) -> list[int]:
    """Sizes that are recorded: 1, 2, 4, then multiples of 8; the last one holds `largest`."""
    return [size for size in (1, 2, 4) if size < largest] + [*range(8, largest, 8), max(largest, 1)]


class DrawingGraphs:
    """Recordings by batch size, made when a size is first met.

    A step is filled up to the next size with rows that write to a block which no sequence has. All sizes read their
    inputs from one tensor, to which a step is sent in a single transfer: rows of token ids, positions and slots, then
    the block table in columns, so that a step sends no more of it than its longest sequence has.
    """

    def __init__(
        self, run: Run, record: Record, *, max_rows: int, max_blocks: int, spare_block: int, num_programs: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        """Args:
        max_rows: sequences of the largest step.
        max_blocks: blocks of the longest sequence.
        spare_block: that no sequence has.
        num_programs: that keep the device busy.
        """
        self._run = run
        self._record = record
        self._sizes = batch_sizes(max_rows)
        self._max_blocks = max_blocks
        self._spare_block = spare_block
        self._num_programs = num_programs
        self._inputs = torch.zeros((3 + max_blocks) * self._sizes[-1], dtype=torch.int32, device=device)
        self._logits: Tensor | None = None
        self._replays: dict[int, Work] = {}

    @property
    def recorded(self) -> list[int]:
        """Batch sizes that were met."""
        return sorted(self._replays)

    def takes(self, step: Step) -> bool:
        """Whether a step only draws, and is small enough."""
        num_rows, longest = step.block_tables.shape
        return len(step.token_ids) == len(step.logit_positions) == num_rows <= self._sizes[-1] and (
            longest <= self._max_blocks
        )

    def forward(self, step: Step) -> Tensor:
        """[N, V] logits of a step that `takes` accepts, one row for each sequence; valid until the next call."""
        size = self._size(step)
        self._fill(step, size)
        if size not in self._replays:
            self._replays[size] = self._record(lambda: self._work(size))
        self._replays[size]()
        assert self._logits is not None, "the first recording made it"
        return self._logits[: len(step.token_ids)]

    def has(self, step: Step) -> bool:
        """Whether steps of this size were recorded."""
        return self._size(step) in self._replays

    def _size(self, step: Step) -> int:
        return self._sizes[bisect_left(self._sizes, len(step.token_ids))]

    def forget(self) -> None:
        """Record anew: what was recorded reads weights that are elsewhere now."""
        self._replays.clear()

    def _work(self, size: int) -> None:
        """What is recorded. All sizes write to one tensor, so that none keeps logits of its own."""
        logits = self._run(*self._views(size))
        if self._logits is None:
            self._logits = logits.new_empty(self._sizes[-1], logits.shape[1])
        self._logits[:size].copy_(logits)

    def _fill(self, step: Step, size: int) -> None:
        num_rows, longest = step.block_tables.shape
        rows = np.full((3 + longest, size), self._spare_block, dtype=np.int32)
        rows[:3, num_rows:] = np.array([0, 0, self._spare_block * BLOCK_SIZE])[:, None]
        rows[:3, :num_rows] = step.token_ids.numpy(), step.positions.numpy(), slots(step)
        rows[3:, :num_rows] = step.block_tables.numpy().T
        sent = torch.from_numpy(rows.ravel())
        if self._inputs.is_cuda:
            sent = sent.pin_memory()
        self._inputs[: sent.numel()].copy_(sent, non_blocking=True)

    def _views(self, size: int) -> tuple[ModelInputs, Places]:
        """The inputs of one batch size; the same places of memory at every call."""
        inputs = self._inputs[: (3 + self._max_blocks) * size].view(-1, size)
        token_ids, positions, places = inputs[:3]
        kept = torch.arange(size, device=inputs.device)
        return (
            ModelInputs(token_ids.long(), positions.long(), kept),
            Places(positions, places, inputs[3:].T, self._num_programs),
        )


class CudaRecorder:
    """Records CUDA graphs of the current device, with one pool of memory for what they need in between."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Work) -> Work:
        """Record work, which is done once before.

        Raises:
            RuntimeError: the work does what cannot be recorded, such as waiting for the device.
        """
        # The first run compiles kernels and makes workspaces, which a recording must not.
        before = torch.cuda.current_stream()
        warm_up = torch.cuda.Stream()
        warm_up.wait_stream(before)
        with torch.cuda.stream(warm_up):
            work()
        before.wait_stream(warm_up)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # A trainer's threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            work()
        return graph.replay
