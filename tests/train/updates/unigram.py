"""A policy that gives every place the same distribution: all of its figures can be had by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.config.resolve import resolve
from llmkit.config.runs import SCHEMAS
from llmkit.models.logprobs import supervised_positions
from llmkit.models.scoring import TokenLogprobs
from llmkit.testing.samples import record
from llmkit.types import Batch, Rollout, Source

VOCABULARY = 5


def resolved(command: str, *overrides: str, **settings: Any) -> Any:
    """A run with these settings and defaults elsewhere."""
    data = ["dataset.name=arithmetic", *overrides]
    return resolve(SCHEMAS[command], command=command, overrides=data, environ={}, **settings).run


class UnigramPolicy:
    """Stands for `Policy`: its logits are its parameters, in float64."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.model = nn.Module()
        self.logits = nn.Parameter(torch.randn(VOCABULARY, generator=generator, dtype=torch.float64))
        self.reference = torch.randn(VOCABULARY, generator=generator, dtype=torch.float64).log_softmax(0)
        self.device = torch.device("cpu")
        self.num_passes = 0
        self.can_share_prompts = True

    def logprobs(
        self,
        batch: Batch,
        *,
        temperature: float = 1.0,
        entropy: str = "none",
        mean_logprobs: bool = False,
        loss_scales: Tensor | None = None,
    ) -> TokenLogprobs:
        self.num_passes += 1
        every = (self.logits / temperature).log_softmax(0)
        chosen = every[batch.token_ids[supervised_positions(batch)]]
        spread = -(every.exp() * every).sum().expand_as(chosen)
        return TokenLogprobs(
            chosen,
            None if entropy == "none" else spread if entropy == "gradient" else spread.detach(),
            every.mean().expand_as(chosen) if mean_logprobs else None,
        )

    def reference_logprobs(self, batch: Batch, *, temperature: float = 1.0) -> Tensor:
        return (self.reference / temperature).log_softmax(0)[batch.token_ids[supervised_positions(batch)]]


@dataclass
class Steps:
    """Stands for a training engine: keeps the gradient of each step, and takes a step of its own when asked to.

    Attributes:
        policy: whose gradients are kept.
        rate: how far each step goes against its gradient.
        gradients: of the steps so far.
    """

    policy: Any
    rate: float = 0.0
    gradients: list[Tensor] = field(default_factory=list)

    def backward(self, loss: Tensor, sources: Sequence[Source] = ()) -> None:
        loss.backward()

    def save(self, directory: Path) -> None:
        raise NotImplementedError("these steps are not kept")

    load = save

    def step(self) -> dict[str, float]:
        logits = self.policy.logits
        gradient = torch.zeros_like(logits) if logits.grad is None else logits.grad
        self.gradients.append(gradient.clone())
        with torch.no_grad():
            logits -= self.rate * gradient
        logits.grad = None
        return {"grad_norm": float(gradient.norm()), "learning_rate": self.rate}


def rollout(
    completion: Sequence[int], reward: float, group: int, stop: str = "stop", logprobs: Sequence[float] = ()
) -> Rollout:
    """A scored rollout after a prompt of two tokens."""
    count = len(completion)
    return Rollout(
        token_ids=[0, 1, *completion],
        loss_mask=[0, 0] + [1] * count,
        logprobs=[0.0, 0.0, *(logprobs or [-1.5] * count)],
        versions=[-1, -1] + [0] * count,
        stop_reason=stop,  # pyright: ignore[reportArgumentType]
        record=record(),
        group_id=group,
        prompt="",
        completion="",
        reward=reward,
    )
