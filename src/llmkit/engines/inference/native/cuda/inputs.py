"""A step's numbers on their way to the device, all in one transfer."""

from typing import NamedTuple

import numpy as np
import torch

from llmkit.engines.inference.native.cuda.attention import Places
from llmkit.engines.inference.native.packed_runner import ModelInputs
from llmkit.engines.inference.native.runner import BLOCK_SIZE, Step
from llmkit.engines.inference.transfers import to_device


class PackedInputs(NamedTuple):
    """A step on the device, and what is known of it without asking the device.

    Attributes:
        counts: tokens of each sequence.
        num_drawn: how many sequences, the first ones, have a single token.
    """

    model: ModelInputs
    places: Places
    counts: list[int]
    num_drawn: int

    @classmethod
    def of(cls, step: Step, device: torch.device, num_programs: int) -> "PackedInputs":
        """Send a step.

        Args:
            num_programs: that keep the device busy.
        """
        starts, tables = step.query_starts.numpy(), step.block_tables.numpy()
        counts = np.diff(starts)
        numbers = (step.token_ids.numpy(), step.positions.numpy(), slots(step), step.logit_positions.numpy())
        sent = to_device(np.concatenate([*numbers, tables.ravel()]).astype(np.int32), device)
        sizes = [*map(len, numbers), tables.size]
        token_ids, positions, places, kept, table = sent.split(sizes)
        several = np.flatnonzero(counts > 1)
        return cls(
            ModelInputs(token_ids.long(), positions.long(), kept.long()),
            Places(positions, places, table.view(tables.shape), num_programs),
            counts.tolist(),
            int(several[0]) if len(several) else len(counts),
        )


def slots(step: Step) -> np.ndarray:
    """[T] where each token's keys and values go: block times BLOCK_SIZE, plus the offset in it."""
    starts, positions = step.query_starts.numpy(), step.positions.numpy()
    owners = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return step.block_tables.numpy()[owners, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
