"""An exponential moving average of the weights in training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Kept in float32 beside the weights.

    Attributes:
        values: the average of each parameter, in the order of the parameters.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        """Begin with the weights as they are.

        Args:
            parameters: those that train.
            decay: share of the average that a step keeps, once it has seen enough steps.
        """
        self._parameters = parameters
        self._decay = decay
        self.values: list[Tensor] = [parameter.detach().float().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, num_steps: int) -> None:
        """Take in the weights after step `num_steps`, from 1.

        The share kept is `min(decay, num_steps / (num_steps + 9))`: the first steps would otherwise weigh next to
        nothing against weights that nothing has trained. Source: arXiv:1412.6980, section 7.2, for the average, with
        the start of `tf.train.ExponentialMovingAverage(num_updates)`.
        """
        decay = min(self._decay, num_steps / (num_steps + 9))
        for average, parameter in zip(self.values, self._parameters, strict=True):
            average.lerp_(parameter.float(), 1 - decay)

    def load(self, values: Sequence[Tensor]) -> None:
        """Go on from saved `values`.

        Raises:
            ValueError, RuntimeError: they are of other parameters.
        """
        for average, value in zip(self.values, values, strict=True):
            average.copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the parameters hold the average; after it, bit for bit what they held."""
        held = [parameter.detach().clone() for parameter in self._parameters]
        self._put(self.values)
        try:
            yield
        finally:
            self._put(held)

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)
