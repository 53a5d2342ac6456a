"""Scored rollouts as batches to train on."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmkit.config.runs import GRPORun
from llmkit.data.codec import TextCodec
from llmkit.data.collate import collate, micro_batches
from llmkit.data.turns import prompt_messages
from llmkit.models.packed import to_device
from llmkit.models.policy import Policy
from llmkit.types import Batch, Record, Rollout, Sample

Scored = tuple[Rollout, float]
"""A rollout and its advantage."""


@dataclass
class Trained:
    """A micro-batch of rollouts. N sampled tokens carry loss.

    Attributes:
        batch: the sequences.
        advantages: [N].
        sampler_logprobs: [N] from the engine, nats.
        old_logprobs: [N] of the policy that the step began with; None when the update starts from it.
        reference_logprobs: [N]; None without a KL penalty.
    """

    batch: Batch
    advantages: Tensor
    sampler_logprobs: Tensor
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None


def divide(rollouts: Sequence[Rollout], advantages: Sequence[float], num_parts: int) -> list[list[Scored]]:
    """Rollouts for each optimizer step, whole groups together; never an empty part."""
    scored = list(zip(rollouts, advantages, strict=True))
    groups: dict[int, list[Scored]] = {}
    for rollout, advantage in scored:
        groups.setdefault(rollout.group_id, []).append((rollout, advantage))
    num_parts = min(num_parts, len(groups))
    parts: list[list[Scored]] = [[] for _ in range(num_parts)]
    for index, group in enumerate(groups.values()):
        parts[index * num_parts // len(groups)].extend(group)
    return parts


def trained_batches(part: Sequence[Scored], run: GRPORun, policy: Policy, *, keep_all: bool = False) -> list[Trained]:
    """Micro-batches of the rollouts that have a gradient, or of all of them.

    Without a KL penalty an advantage of 0 leaves none, so those rollouts are not computed; they still count in the
    total that the loss is divided by.
    """
    keep_all = keep_all or run.algorithm.kl_coef > 0
    kept = [(rollout, advantage) for rollout, advantage in part if keep_all or advantage]
    samples = {id(rollout): as_sample(rollout) for rollout, _ in kept}
    rollouts = {id(samples[id(rollout)]): (rollout, advantage) for rollout, advantage in kept}
    return [
        _trained([rollouts[id(sample)] for sample in micro], micro, policy.device)
        for micro in micro_batches(list(samples.values()), run.batch.tokens_per_micro_batch)
    ]


def _trained(scored: Sequence[Scored], samples: Sequence[Sample], device: torch.device) -> Trained:
    advantages = [advantage for rollout, advantage in scored for _ in range(rollout.completion_length)]
    logprobs = [
        logprob
        for rollout, _ in scored
        for logprob, mask in zip(rollout.logprobs, rollout.loss_mask, strict=True)
        if mask
    ]
    return Trained(
        to_device(collate(samples), device),
        torch.tensor(advantages, device=device),
        torch.tensor(logprobs, device=device),
    )


def as_sample(rollout: Rollout) -> Sample:
    """The rollout's tokens, with loss on what was sampled."""
    return Sample(rollout.token_ids, [float(mask) for mask in rollout.loss_mask], rollout.record.source)


def prompt_samples(codec: TextCodec, records: Sequence[Record]) -> list[Sample]:
    """Prompts alone, which carry no loss, to show and to estimate with before anything is sampled."""
    samples = []
    for record in records:
        token_ids = codec.prompt_ids(prompt_messages(record), record.source, record.tools)
        samples.append(Sample(token_ids, [0.0] * len(token_ids), record.source))
    return samples


def metrics_of(rollouts: Sequence[Rollout], version: int) -> dict[str, float]:
    """What the rollouts of a step have in common.

    Args:
        version: of the weights that the step began with.
    """
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    lengths = [rollout.completion_length for rollout in rollouts]
    oldest = min(version for rollout in rollouts for version in rollout.versions if version >= 0)
    return {
        "reward_mean": statistics.fmean(rewards),
        "reward_std": statistics.pstdev(rewards),
        "completion_length_mean": statistics.fmean(lengths),
        "truncated_fraction": statistics.fmean(rollout.stop_reason == "length" for rollout in rollouts),
        "staleness_max": version - oldest,
        "num_tokens": sum(len(rollout.token_ids) for rollout in rollouts),
    }
