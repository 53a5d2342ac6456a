from typing import Any

import pytest
import torch
from torch import nn

from llmkit.config.resolve import resolve
from llmkit.config.runs import SCHEMAS
from llmkit.train.dry_run.analytic import optimizer_bytes


class NoHooks:
    """An adapter that lets every parameter learn alike."""

    def learning_rate_ratio(self, name: str) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("adamw", 2 * 4 * (64 * 32 + 64)),
        ("schedule_free", 2 * 4 * (64 * 32 + 64)),
        ("muon", 4 * (64 * 32) + 2 * 4 * 64),  # a momentum for the matrix, two moments for the bias
        ("adafactor", 4 * (64 + 32 + 64)),  # rows, columns, the bias
        ("sgd", 4 * (64 * 32 + 64)),
    ],
)
def test_every_optimizer_is_weighed_without_memory(optimizer: str, expected: int):
    overrides = ["dataset=arithmetic", f"optim.optimizer={optimizer}"]
    run = resolve(SCHEMAS["train/sft"], command="train/sft", overrides=overrides, environ={}).run
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(32, 64))
    hooks: Any = NoHooks()
    # Counters of steps may be tensors too.
    assert expected <= optimizer_bytes(run, model, hooks) <= expected + 16
