"""Scored rollouts as batches to train on: shaped rewards, advantages, micro-batches."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmkit.algorithms.advantages import advantages, lone_members, standardize, sums_to_the_end
from llmkit.algorithms.kl import kl_estimate
from llmkit.algorithms.reward_shaping import overlong_penalties, shape_rewards
from llmkit.config.algorithms import GRPOConfig, RewardShapingConfig
from llmkit.config.runs import GRPORun
from llmkit.data.codec import TextCodec
from llmkit.data.collate import collate_groups, divide_group, micro_batches
from llmkit.data.turns import prompt_messages
from llmkit.distributed.world import world
from llmkit.models.logprobs import supervised_positions
from llmkit.models.packed import sequence_ids, to_device
from llmkit.models.policy import Policy
from llmkit.train.shares import empty_batch, even_share, pad
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

    @property
    def sequence_ids(self) -> Tensor:
        """[N] which sequence each token belongs to, from 0."""
        return sequence_ids(self.batch)[supervised_positions(self.batch)]


def score_groups(rollouts: Sequence[Rollout], run: GRPORun) -> tuple[list[Scored], dict[str, float]]:
    """The rollouts that train, with their advantages, and metrics of the groups.

    Truncated rollouts that are left out of the loss are compared with all the same.
    """
    algorithm = run.algorithm
    rewards = shaped_rewards(rollouts, run)
    group_ids = torch.tensor([rollout.group_id for rollout in rollouts])
    penalized = algorithm.kl_coef > 0 and algorithm.kl_in == "reward"
    # With a penalty in the rewards, `penalize` scales: the deviation is that of what is left after it.
    scale = "none" if penalized else algorithm.advantage_scale
    found = advantages(rewards, group_ids, baseline=algorithm.baseline, scale=scale).tolist()
    scored = [
        (rollout, advantage)
        for rollout, advantage in zip(rollouts, found, strict=True)
        if not (algorithm.mask_truncated and rollout.stop_reason == "length")
    ]
    metrics: dict[str, float] = {"num_groups_of_one": lone_members(group_ids)}
    if algorithm.reward_shaping != RewardShapingConfig.model_validate({}):
        metrics["shaped_reward_mean"] = float(rewards.mean())
    return scored, metrics


def shaped_rewards(rollouts: Sequence[Rollout], run: GRPORun) -> Tensor:
    """[B] rewards as advantages are made of them."""
    shaping = run.algorithm.reward_shaping
    rewards = torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float32)
    penalties = None
    if shaping.overlong_fraction:
        lengths = torch.tensor([rollout.completion_length for rollout in rollouts], dtype=torch.float32)
        limit = run.sampling.max_new_tokens
        buffer = max(1, round(shaping.overlong_fraction * limit))
        penalties = shaping.overlong_penalty * overlong_penalties(lengths, max_length=limit, buffer=buffer)
    return shape_rewards(rewards, penalties=penalties, bias=shaping.bias, scale=shaping.scale, clip=shaping.clip)


def divide(scored: Sequence[Scored], num_parts: int) -> list[list[Scored]]:
    """Rollouts for each optimizer step, whole groups together; no part is empty unless there is nothing at all."""
    groups: dict[int, list[Scored]] = {}
    for rollout, advantage in scored:
        groups.setdefault(rollout.group_id, []).append((rollout, advantage))
    num_parts = max(1, min(num_parts, len(groups)))
    parts: list[list[Scored]] = [[] for _ in range(num_parts)]
    for index, group in enumerate(groups.values()):
        parts[index * num_parts // len(groups)].extend(group)
    return parts


def trained_batches(part: Sequence[Scored], run: GRPORun, policy: Policy, *, keep_all: bool = False) -> list[Trained]:
    """Micro-batches of the rollouts that have a gradient, or of all of them; of several processes, each has a share.

    Without a KL penalty and an entropy bonus an advantage of 0 leaves none, so those rollouts are not computed; they
    still count in the total that the loss is divided by. The prompt of a group is computed once per micro-batch.
    """
    keep_all = keep_all or run.algorithm.kl_coef > 0 or run.algorithm.entropy_coef > 0
    part = even_share(part, lambda one: len(one[0].token_ids) if keep_all or one[1] else 0)
    share = run.batch.share_prompts and policy.can_share_prompts
    groups: dict[int, list[Sample]] = {}
    scored: dict[int, Scored] = {}
    for rollout, advantage in part:
        if keep_all or advantage:
            sample = as_sample(rollout)
            scored[id(sample)] = (rollout, advantage)
            groups.setdefault(rollout.group_id if share else len(scored), []).append(sample)
    budget = run.batch.tokens_per_micro_batch
    together = [some for group in groups.values() for some in divide_group(group, budget)]
    found = [
        _trained([scored[id(sample)] for group in micro for sample in group], micro, policy.device)
        for micro in micro_batches(together, budget)
    ]
    return pad(found, lambda: _empty(policy.device))


def penalize(micro: Sequence[Trained], algorithm: GRPOConfig) -> None:
    """Take the KL divergence off the advantages of a whole step, token by token, and scale them.

    A token answers for its own divergence and for that of the tokens after it.

    Source: arXiv:2501.03262 (REINFORCE++), with the estimator k1 and a batch's deviation.
    """
    for trained in micro:
        assert trained.old_logprobs is not None
        assert trained.reference_logprobs is not None
        kl = kl_estimate(trained.old_logprobs, trained.reference_logprobs, algorithm.kl_estimator)
        trained.advantages = trained.advantages - algorithm.kl_coef * sums_to_the_end(kl, trained.sequence_ids)
    if algorithm.advantage_scale == "batch":
        sizes = [len(trained.advantages) for trained in micro]
        own = torch.cat([trained.advantages for trained in micro] or [torch.zeros(0)])
        shares = world().gather_shares(own.double().cpu())
        if not sum(map(len, shares)):
            return
        before = sum(map(len, shares[: world().data_rank]))
        scaled = standardize(torch.cat(shares)).float()[before : before + len(own)].to(own.device)
        for trained, part in zip(micro, scaled.split(sizes), strict=True):
            trained.advantages = part


def _empty(device: torch.device) -> Trained:
    """A micro-batch of no rollouts."""
    return Trained(empty_batch(device), torch.zeros(0, device=device), torch.zeros(0, device=device))


def _trained(scored: Sequence[Scored], groups: Sequence[Sequence[Sample]], device: torch.device) -> Trained:
    advantages = [advantage for rollout, advantage in scored for _ in range(rollout.completion_length)]
    logprobs = [
        logprob
        for rollout, _ in scored
        for logprob, mask in zip(rollout.logprobs, rollout.loss_mask, strict=True)
        if mask
    ]
    return Trained(
        to_device(collate_groups(groups), device),
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
    names = list(dict.fromkeys(name for rollout in rollouts for name in rollout.rewards))
    by_name = {
        f"reward_{name}_mean": statistics.fmean(one.rewards[name] for one in rollouts if name in one.rewards)
        for name in (names if len(names) > 1 else [])
    }
    return by_name | {
        "reward_mean": statistics.fmean(rewards),
        "reward_std": statistics.pstdev(rewards),
        "reward_error_fraction": statistics.fmean(rollout.reward_error is not None for rollout in rollouts),
        "completion_length_mean": statistics.fmean(lengths),
        "truncated_fraction": statistics.fmean(rollout.stop_reason == "length" for rollout in rollouts),
        "staleness_max": version - oldest,
        "num_tokens": sum(len(rollout.token_ids) for rollout in rollouts),
    }
