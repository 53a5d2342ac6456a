"""How a model runs while it generates: without dropout, in the compute type of training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmkit.models.policy import Policy


@contextmanager
def generating(policy: Policy) -> Iterator[None]:
    """Evaluation mode and autocast; afterwards each module is as it was."""
    training = [module for module in policy.model.modules() if module.training] if policy.model.training else []
    for module in training:
        module.training = False
    try:
        # The cache of casts is shared among threads: what is made here must not get into a training step.
        with torch.autocast(
            policy.device.type,
            policy.compute_dtype,
            enabled=policy.compute_dtype != torch.float32,
            cache_enabled=False,
        ):
            yield
    finally:
        for module in training:
            module.training = True
