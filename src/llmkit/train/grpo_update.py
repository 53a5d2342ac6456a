"""The optimizer steps on one batch of scored rollouts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmkit.algorithms.aggregate import step_total, token_scales
from llmkit.algorithms.importance import Correction, importance_weights
from llmkit.algorithms.kl import kl_estimate
from llmkit.algorithms.policy_loss import Surrogate, surrogate_loss
from llmkit.config.algorithms import GRPOConfig
from llmkit.config.runs import GRPORun
from llmkit.distributed.world import world
from llmkit.engines.training.contract import TrainEngine
from llmkit.models.logprobs import supervised_positions
from llmkit.models.policy import Policy
from llmkit.models.scalars import Sums
from llmkit.train.mismatch import Comparison
from llmkit.train.rollout_batch import Scored, Trained, divide, penalize, score_groups, trained_batches
from llmkit.types import Rollout


@dataclass
class Findings:
    """What a step's micro-batches come to.

    Attributes:
        sums: the loss, and metrics summed over tokens.
        comparison: of trainer and engine, complete before the first optimizer step.
    """

    sums: Sums = field(default_factory=Sums)
    comparison: Comparison = field(default_factory=Comparison)


def update(
    engine: TrainEngine,
    rollouts: Sequence[Rollout],
    run: GRPORun,
    check: Callable[[Mapping[str, float]], None] = lambda metrics: None,
) -> dict[str, float]:
    """The optimizer steps on one batch of rollouts.

    Args:
        check: sees how trainer and engine disagree before weights change, and may raise.
    """
    scored, metrics = score_groups(rollouts, run)
    parts = divide(scored, run.algorithm.updates_per_step)
    batches = [trained_batches(part, run, engine.policy) for part in parts]
    found = Findings()
    prepare(engine.policy, batches, run, found.comparison)
    engine.policy.model.train()
    steps: list[dict[str, float]] = []
    compared: dict[str, float] = {}
    for part, micro in zip(parts, batches, strict=True):
        backward(engine, part, micro, run, found)
        if not steps:
            compared = found.comparison.metrics()
            check(compared)
        steps.append(engine.step())
    sums = world().sum_metrics({"loss": 0.0, "num_trained_tokens": 0.0} | found.sums.read())
    count = sums.pop("num_trained_tokens")
    loss = sums.pop("loss") / len(parts)
    if not count:
        found = measure(engine.policy, parts, run)
        sums = world().sum_metrics(found.sums.read())
        compared = found.comparison.metrics()
        check(compared)
    num_measured = count or sums.pop("num_trained_tokens", 0.0)
    return {
        "loss": loss,
        **{name: value / num_measured for name, value in sums.items()},
        **compared,
        "num_trained_tokens": count,
        "grad_norm": max(step["grad_norm"] for step in steps),
        "learning_rate": steps[-1]["learning_rate"],
        **metrics,
    }


def backward(
    engine: TrainEngine, part: Sequence[Scored], batches: Sequence[Trained], run: GRPORun, found: Findings
) -> None:
    """The gradient of one optimizer step; adds its loss and metrics to `found`."""
    total = step_total(
        run.algorithm.average,
        num_tokens=sum(rollout.completion_length for rollout, _ in part),
        num_sequences=len(part),
        length=run.algorithm.average_length or run.sampling.max_new_tokens,
    )
    for trained in batches:
        loss, metrics = batch_loss(engine.policy, trained, run, total, found.comparison)
        engine.backward(loss, trained.batch.sources)
        found.sums.add({"loss": loss, **metrics})


@torch.no_grad()
def measure(policy: Policy, parts: Sequence[Sequence[Scored]], run: GRPORun) -> Findings:
    """The metrics of a step without any gradient, in which the answers of every group are equally good."""
    found = Findings()
    for trained in (trained for part in parts for trained in trained_batches(part, run, policy, keep_all=True)):
        _, metrics = batch_loss(policy, trained, run, 1.0, found.comparison)
        found.sums.add(metrics)
    return found


@torch.no_grad()
def prepare(policy: Policy, batches: Sequence[Sequence[Trained]], run: GRPORun, comparison: Comparison) -> None:
    """What is needed before the weights change: old and reference log-probabilities, advantages with a penalty in them.

    With one update per step the policy is the one that the step began with, so its old log-probabilities are those of
    the update itself and need no pass of their own.
    """
    algorithm, temperature = run.algorithm, run.sampling.temperature
    penalized = algorithm.kl_coef > 0 and algorithm.kl_in == "reward"
    policy.model.eval()
    micro = [trained for part in batches for trained in part]
    for trained in micro:
        if len(batches) > 1 or penalized:
            trained.old_logprobs = policy.logprobs(trained.batch, temperature=temperature).logprobs
            comparison.add(trained.old_logprobs, trained.sampler_logprobs)
        if algorithm.needs_reference:
            trained.reference_logprobs = policy.reference_logprobs(trained.batch, temperature=temperature)
    if penalized:
        penalize(micro, algorithm)


def batch_loss(
    policy: Policy, trained: Trained, run: GRPORun, total: float, comparison: Comparison
) -> tuple[Tensor, dict[str, Tensor]]:
    """A micro-batch's part of the step's loss, and metrics of each of its [N] trained tokens.

    Probability ratios are those of the trainer alone, whatever engine sampled: its own log-probabilities of the policy
    that the step began with are below the line. The engine's are in the importance weights and in the comparison.
    """
    algorithm = run.algorithm
    wanted = "gradient" if algorithm.entropy_coef else "value"
    ids = trained.sequence_ids
    present = trained.batch.loss_weights[supervised_positions(trained.batch)]
    scales = token_scales(present, ids, algorithm.average, total)
    logprobs, entropy, _ = policy.logprobs(
        trained.batch,
        temperature=run.sampling.temperature,
        entropy=wanted,
        loss_scales=trained.advantages * scales if has_plain_gradient(trained, algorithm) else None,
    )
    assert entropy is not None
    old = trained.old_logprobs if trained.old_logprobs is not None else logprobs.detach()
    if trained.old_logprobs is None:
        comparison.add(old, trained.sampler_logprobs)
    losses, clipped = surrogate_loss(logprobs, old, trained.advantages, ids, surrogate_of(algorithm))
    weights, metrics = importance_weights(old, trained.sampler_logprobs, ids, correction_of(algorithm))
    losses = weights * losses
    if trained.reference_logprobs is not None:
        kl = kl_estimate(logprobs, trained.reference_logprobs, algorithm.kl_estimator)
        metrics["kl"] = kl.detach()
        if algorithm.kl_in == "loss":
            losses = losses + algorithm.kl_coef * kl
    if algorithm.entropy_coef:
        losses = losses - algorithm.entropy_coef * entropy
    return (losses * scales).sum(), {
        "num_trained_tokens": present,
        "entropy": entropy.detach(),
        "ratio_clipped_fraction": clipped,
        **metrics,
    }


def has_plain_gradient(trained: Trained, algorithm: GRPOConfig) -> bool:
    """Whether the loss has the gradient of `-sum(advantages * scales * logprobs)`: all surrogates do on policy."""
    has_kl = trained.reference_logprobs is not None and algorithm.kl_in == "loss"
    on_policy = trained.old_logprobs is None and algorithm.correction.action == "none"
    return on_policy and not has_kl and not algorithm.entropy_coef


def surrogate_of(algorithm: GRPOConfig) -> Surrogate:
    """The policy loss that a configuration asks for."""
    return Surrogate(
        algorithm.loss,
        algorithm.ratio,
        algorithm.clip_low,
        algorithm.clip_high,
        algorithm.dual_clip,
        algorithm.sapo_temperatures,
    )


def correction_of(algorithm: GRPOConfig) -> Correction:
    """The importance correction that a configuration asks for."""
    correction = algorithm.correction
    return Correction(correction.action, correction.level, correction.lower, correction.upper)
