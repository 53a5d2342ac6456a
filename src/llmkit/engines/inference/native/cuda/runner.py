"""A policy on an NVIDIA GPU: its own modules, attention in Triton kernels, and CUDA graphs of steps that only draw."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from llmkit.engines.inference.native.cuda.attention import Places
from llmkit.engines.inference.native.cuda.device import num_processors
from llmkit.engines.inference.native.cuda.graphs import CudaRecorder, DrawingGraphs, Record
from llmkit.engines.inference.native.cuda.inputs import PackedInputs
from llmkit.engines.inference.native.cuda.layout import CudaLayout
from llmkit.engines.inference.native.cuda.waiting import Waits
from llmkit.engines.inference.native.packed_runner import ModelInputs, PackedRunner, packed_forward
from llmkit.engines.inference.native.paged_attention import LayerShape
from llmkit.engines.inference.native.runner import Step
from llmkit.engines.inference.native.scheduler import blocks_for
from llmkit.models.policy import Policy

logger = logging.getLogger(__name__)

PROGRAMS_PER_PROCESSOR = 2
"""Programs of a kernel for each of the GPU's processors: while one waits for memory, another one computes."""


class CudaRunner(PackedRunner):
    """Steps with adapters, and those that read prompts, run kernel by kernel; the others are replayed."""

    def __init__(
        self, policy: Policy, shapes: Sequence[LayerShape], *, max_rows: int, records: bool = True,
        record: Record | None = None,
    ) -> None:  # fmt: skip
        """Ask `device.why_not` first.

        Args:
            max_rows: sequences of the largest step.
            records: whether to make CUDA graphs.
            record: how; None is on the GPU.
        """
        super().__init__(policy, shapes)
        self._max_rows = max_rows
        self._record = record or CudaRecorder()
        self._records = records
        self._num_programs = PROGRAMS_PER_PROCESSOR * num_processors(policy.device)
        self._graphs: DrawingGraphs | None = None
        self._was_watched = False
        self._storages: list[int] = []

    def allocate(self, num_blocks: int) -> None:
        """Make the cache, with one block more, which rows that only fill a batch write to.

        Raises:
            EngineError: there is no memory for it.
        """
        super().allocate(num_blocks + 1)
        self._graphs = DrawingGraphs(
            self._run_drawing,
            self._record,
            max_rows=self._max_rows,
            max_blocks=min(num_blocks, blocks_for(self._policy.context_length)),
            spare_block=num_blocks,
            num_programs=self._num_programs,
            device=self._policy.device,
        )

    def forward(self, step: Step) -> Tensor:
        """[N, V] logits after the chosen positions; valid until the next call."""
        # A thread begins with the first GPU, and Triton launches on the current one.
        with self._current_device():
            return super().forward(step)

    def weights_changed(self) -> None:
        """Under autocast, round the matrices anew; record anew if parameters lie elsewhere now."""
        super().weights_changed()
        if self._graphs is not None and self._storages != self._places_of_weights():
            self._graphs.forget()

    def free_cache(self) -> None:
        """Undo `allocate`; recordings go too."""
        self._graphs = None
        super().free_cache()

    def _run(self, step: Step) -> Tensor:
        graphs = self._graphs
        assert graphs is not None, "`allocate` comes first"
        if not self._records or any(step.adapters) or not graphs.takes(step):
            return self._run_packed(step)
        if not self._was_watched:
            return self._watch(step)
        if not graphs.recorded:
            self._storages = self._places_of_weights()
        if graphs.has(step):
            return graphs.forward(step)
        try:
            return graphs.forward(step)
        except RuntimeError as error:  # whatever CUDA says about what it cannot record
            self._stop_recording(f"{type(error).__name__}: {error}")
            return self._run_packed(step)

    def _watch(self, step: Step) -> Tensor:
        """The first step that could be recorded shows whether the model's code can be."""
        with Waits() as waits:
            logits = self._run_packed(step)
        self._was_watched = True
        if waits.found:
            self._stop_recording(f"its forward pass waits for the GPU ({', '.join(waits.found)})")
        elif self._policy.passes is not None:
            self._stop_recording("its parameters are divided among processes")
        return logits

    def _stop_recording(self, reason: str) -> None:
        self._records = False
        logger.warning("%s runs without CUDA graphs, which is slower: %s", self._policy.model.config.model_type, reason)

    def _run_packed(self, step: Step) -> Tensor:
        inputs = PackedInputs.of(step, self._policy.device, self._num_programs)
        reading = step.query_starts.numpy()[inputs.num_drawn : -1]
        begins = not step.positions.numpy()[reading].any()
        layout = CudaLayout(self._caches, inputs.places, inputs.counts, num_drawn=inputs.num_drawn, begins=begins)
        return packed_forward(self._policy.model, inputs.model, layout)

    def _run_drawing(self, inputs: ModelInputs, places: Places) -> Tensor:
        num_rows = len(inputs.token_ids)
        layout = CudaLayout(self._caches, places, [1] * num_rows, num_drawn=num_rows, begins=False)
        return packed_forward(self._policy.model, inputs, layout)

    def _places_of_weights(self) -> list[int]:
        model = self._policy.model
        return [tensor.data_ptr() for tensors in (model.parameters(), model.buffers()) for tensor in tensors]

    def _current_device(self) -> AbstractContextManager[object]:
        device = self._policy.device
        return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
