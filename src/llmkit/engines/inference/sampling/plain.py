"""Rows that are drawn from as the model left them, in one pass of compiled code where there is some."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from llmkit.engines.inference.sampling.state import SamplerState
from llmkit.engines.inference.sampling.uniform import uniform


class PlainDraws(NamedTuple):
    """R rows that have a temperature and no other rule.

    Attributes:
        rows: [R] int32, of the logits.
        temperatures: [R] float32; 0 takes the likeliest token.
        uniforms: [R] float64 in [0, 1).
        num_drawable: ids from here on are padding of the vocabulary.
        wants_logprobs: whether anyone asks for log-probabilities.
    """

    rows: np.ndarray
    temperatures: np.ndarray
    uniforms: np.ndarray
    num_drawable: int
    wants_logprobs: bool

    @classmethod
    def of(cls, rows: Sequence[int], states: Sequence[SamplerState]) -> "PlainDraws":
        """Draws of some rows; `states` has one for each of them."""
        return cls(
            np.array(rows, np.int32),
            np.array([0 if state.is_greedy else state.temperature for state in states], np.float32),
            uniform([state.seed for state in states], [state.num_drawn for state in states]),
            states[0].context.num_drawable,
            any(state.sampling.wants_logprobs for state in states),
        )

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The arrays by name."""
        return {"rows": self.rows, "temperatures": self.temperatures, "uniforms": self.uniforms}


class PlainSampler(Protocol):
    """Draws as `batch.draw` does: by the running sum of probabilities in the order of ids."""

    def __call__(self, logits: Tensor, draws: PlainDraws) -> tuple[list[int], list[float]]:
        """R token ids, and R log-probabilities after temperature: NaN where nothing can be drawn, and 0 where nobody
        asks.

        Args:
            logits: [B, V].
        """
        ...
