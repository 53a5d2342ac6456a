"""Samples as a micro-batch that knows where its rows came from."""

from collections.abc import Sequence

import torch

from llmkit.data.collate import collate
from llmkit.models.packed import to_device
from llmkit.types import Batch, Sample


def micro_batch(samples: Sequence[Sample], device: torch.device) -> Batch:
    """The samples laid end to end, on the device."""
    batch = to_device(collate(samples), device)
    batch.sources = [sample.source for sample in samples]
    return batch
