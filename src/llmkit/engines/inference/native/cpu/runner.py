"""The C++ step behind the `Runner` protocol."""

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from llmkit import machine
from llmkit.engines.inference.native.cpu import library
from llmkit.engines.inference.native.cpu.adapters import CpuAdapters
from llmkit.engines.inference.native.cpu.family import compute_dtype, model_objection
from llmkit.engines.inference.native.cpu.structures import DrawsView, StepView
from llmkit.engines.inference.native.cpu.weights import SharedWeights
from llmkit.engines.inference.native.runner import BLOCK_SIZE, Step
from llmkit.engines.inference.sampling.plain import PlainDraws
from llmkit.errors import EngineError
from llmkit.formatting import format_bytes
from llmkit.models.policy import Policy

INDEX_TYPES = {
    "token_ids": torch.int64,
    "positions": torch.int64,
    "logit_positions": torch.int64,
    "query_starts": torch.int32,
    "block_tables": torch.int32,
}
"""Of a step's tensors, as C++ reads them."""
COPY_SHARE = 0.25
"""Of the free memory, what a copy of the matrices may take without being asked for."""


class CpuRunner:
    """Runs Llama-like models on the CPU.

    Matrices are kept a second time, in the order in which they are read, where there is memory for it; else each step
    reads the policy's own parameters.

    A token's logits do not depend on what else is in its step, nor on how its prompt was cut into chunks: to the bit.

    Attributes:
        adapters: low-rank adapters that steps may name.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        num_threads: int | None = None,
        architecture: str = "native",
        copies_weights: bool | None = None,
    ) -> None:
        """Ask `why_not` first.

        Args:
            num_threads: PyTorch's number when None.
            architecture: processor to compile for, as the compiler's `-march` names it.
            copies_weights: whether to keep matrices a second time; None does where that takes little of what is free.
        Raises:
            BuildError: see `library.load`.
            EngineError: there is no memory for the copy.
        """
        self._library = library.load(architecture)
        self._dtype = compute_dtype(policy)
        self._weights = SharedWeights(policy.model, self._dtype)
        if copies_weights is None:
            copies_weights = _has_room(self._weights.copied_bytes)
        self._shape = self._weights.shape(is_copied=copies_weights)
        self._model: int | None = self._library.llmkit_create(
            ctypes.byref(self._shape), num_threads or torch.get_num_threads()
        )
        try:
            self._hand_over_weights()
        except EngineError:
            self.close()
            raise
        self._hand_over_angles()
        assert self._model is not None, "C++ makes a model or throws"
        self.adapters = CpuAdapters(self._library, self._model, policy.model, self._dtype)

    @staticmethod
    def why_not(policy: Policy) -> str | None:
        """Why this runner cannot run the policy, in words; None when it can. Compiles the step if it can."""
        if objection := model_objection(policy):
            return objection
        try:
            library.load()
        except library.BuildError as error:
            return str(error)
        return None

    @property
    def bytes_per_block(self) -> int:
        """Of keys and values of all layers, for one block."""
        return self._library.llmkit_bytes_per_block(self._model)

    def allocate(self, num_blocks: int) -> None:
        """Make the cache; called once, before the first step.

        Raises:
            EngineError: there is no memory for it; says how many blocks there is memory for.
        """
        available = machine.memory()["available"]
        wanted = num_blocks * self.bytes_per_block
        if available is not None and wanted > available:
            raise EngineError(
                f"a KV cache of {num_blocks} blocks takes {format_bytes(wanted)}, and {format_bytes(available)} of "
                f"memory are free: at most {available // self.bytes_per_block} blocks fit"
            )
        if not self._library.llmkit_allocate(self._model, num_blocks):
            raise EngineError(f"the system gives no {format_bytes(wanted)} for a KV cache of {num_blocks} blocks")

    def forward(self, step: Step) -> Tensor:
        """Write the tokens' keys and values; returns [N, V] logits after the chosen tokens, in the compute type.

        Raises:
            EngineError: the step makes no sense, asks for an adapter that is not loaded, or there is no memory for it.
        """
        adapters = self.adapters.numbers(step.adapters)
        longest = int(step.positions.max()) + 1
        if self._weights.num_positions < longest <= step.block_tables.shape[1] * BLOCK_SIZE:
            self._weights.reach(longest)
            self._hand_over_angles()
        logits = torch.empty(len(step.logit_positions), self._shape.vocab_size, dtype=self._dtype)
        dense = {name: getattr(step, name).to(dtype).contiguous() for name, dtype in INDEX_TYPES.items()}
        view = StepView(
            **{name: tensor.data_ptr() for name, tensor in dense.items()},
            adapters=adapters.data_ptr(),
            num_tokens=len(step.token_ids),
            num_sequences=len(step.block_tables),
            num_logits=len(logits),
            table_width=step.block_tables.shape[1],
            logits=logits.data_ptr(),
        )
        self._check(self._library.llmkit_forward(self._model, ctypes.byref(view)))
        return logits

    def draw(self, logits: Tensor, draws: PlainDraws) -> tuple[list[int], list[float]]:
        """Token ids and log-probabilities, as `PlainSampler` says."""
        assert (logits.dtype, logits.shape[1]) == (self._dtype, self._shape.vocab_size)
        logits = logits.contiguous()
        token_ids, logprobs = np.empty(len(draws.rows), np.int64), np.empty(len(draws.rows), np.float64)
        arrays = {**draws.arrays, "token_ids": token_ids, "logprobs": logprobs}
        view = DrawsView(
            logits=logits.data_ptr(),
            **{name: array.ctypes.data for name, array in arrays.items()},
            num_rows=len(draws.rows),
            num_drawable=draws.num_drawable,
            wants_logprobs=draws.wants_logprobs,
        )
        self._check(self._library.llmkit_draw(self._model, ctypes.byref(view)))
        return token_ids.tolist(), logprobs.tolist()

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole blocks, for sequences that part ways within one.

        Raises:
            EngineError: there is no such block.
        """
        for source, target in zip(sources, targets, strict=True):
            self._check(self._library.llmkit_copy_block(self._model, source, target))

    def weights_changed(self) -> None:
        """Read the parameters anew."""
        self._weights.refresh()
        self._hand_over_weights()

    def close(self) -> None:
        """Free everything. Closing twice is allowed."""
        if self._model is not None:
            self._library.llmkit_destroy(self._model)
            self._model = None

    def _check(self, success: int) -> None:
        if not success:
            raise EngineError(f"the C++ step failed: {self._library.llmkit_error(self._model).decode()}")

    def _hand_over_weights(self) -> None:
        self._check(self._library.llmkit_set_weights(self._model, ctypes.byref(self._weights.current)))

    def _hand_over_angles(self) -> None:
        self._library.llmkit_set_angles(self._model, ctypes.byref(self._weights.angles))


def _has_room(num_bytes: int) -> bool:
    """Whether so much more memory leaves the most of what is free to others."""
    available = machine.memory()["available"]
    return available is None or num_bytes <= available * COPY_SHARE
