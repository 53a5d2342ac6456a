"""`llmkit train grpo`: reinforcement learning from verifiable rewards."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmkit import plugins
from llmkit.algorithms.aggregate import token_scales
from llmkit.algorithms.grpo import group_advantages, grpo_loss
from llmkit.config.resolve import Resolved
from llmkit.config.runs import GRPORun
from llmkit.data.encoders import PromptEncoder
from llmkit.engines.inference.contract import EngineContext, InferenceEngine
from llmkit.engines.training.contract import TrainEngine
from llmkit.models.dropout import DROPOUT_IS_OFF, disable_dropout
from llmkit.models.logprobs import supervised_positions
from llmkit.models.packed import sequence_ids
from llmkit.models.policy import Policy
from llmkit.rollout.groups import sample_groups, score_all
from llmkit.train.closing import close_run
from llmkit.train.console import note, print_samples, warn
from llmkit.train.dry_run import dry_run
from llmkit.train.inputs import Inputs, build, open_inputs
from llmkit.train.invocation import Invocation
from llmkit.train.loaders import open_prompts
from llmkit.train.rollout_batch import Scored, Trained, divide, metrics_of, prompt_samples, trained_batches
from llmkit.train.session import Session, Stopwatch, costs
from llmkit.types import Record, Rollout, SamplingParams


def train(resolved: Resolved[GRPORun], invocation: Invocation) -> dict[str, Any]:
    """Run it; returns the summary as plain values."""
    run = resolved.run
    inputs = open_inputs(run)
    data = run.data.model_copy(update={"max_length": inputs.max_length})
    encoder = PromptEncoder(inputs.codec, data, run.sampling.max_new_tokens)
    if invocation.dry_run:
        return dry_run(
            resolved,
            inputs,
            prompt_samples(inputs.codec, [inputs.peek(encoder)]),
            rows_per_step=run.batch.prompts_per_step * run.algorithm.group_size,
            completion_tokens=run.sampling.max_new_tokens,
        )
    loader = open_prompts(inputs, encoder, run)
    held_out = inputs.read_held_out(encoder, run.eval.max_rows)
    with (
        Session(
            resolved,
            invocation,
            inputs,
            loader,
            command="train/grpo",
            with_reference=run.algorithm.kl_coef > 0,
        ) as session,
        asyncio.Runner() as loop,
        open_sampler(run, session.policy, inputs, loop) as sampler,
    ):
        policy = session.policy
        if disable_dropout(policy.model):
            note(DROPOUT_IS_OFF)
        loop.run(sampler.engine.load_weights(session.start))
        if held_out and session.start == 0:
            session.journal.log(0, loop.run(evaluate(sampler, held_out, session, step=0)))
        for step in range(session.start + 1, session.total_steps + 1):
            watch = Stopwatch()
            policy.model.eval()
            rollouts = loop.run(sampler.groups(loader.next_step(), step))
            seconds = {"generation_seconds": watch.read()}
            loop.run(score_all(rollouts, sampler.reward))
            seconds["scoring_seconds"] = watch.read()
            metrics = metrics_of(rollouts, step - 1) | update(session.engine, rollouts, run)
            seconds["training_seconds"] = watch.read()
            loop.run(sampler.engine.load_weights(step))
            seconds["sync_seconds"] = watch.read()
            metrics |= seconds
            metrics |= costs(metrics["num_tokens"], sum(seconds.values()), loader.counts, policy.device)
            session.journal.rollouts(step, rollouts)
            if held_out and session.evaluates_at(step):
                metrics |= loop.run(evaluate(sampler, held_out, session, step=step))
            session.finish_step(step, metrics)
    return close_run(session)


@dataclass
class Sampler:
    """Everything that turns records into scored rollouts."""

    run: GRPORun
    inputs: Inputs
    engine: InferenceEngine
    workflow: Any
    reward: Any

    async def groups(self, records: Sequence[Record], step: int) -> list[Rollout]:
        """A group of unscored rollouts for each record, drawn with the run's settings."""
        return await self._draw(records, self.run.algorithm.group_size, self.run.sampling.temperature, f"train:{step}")

    async def held_out(self, records: Sequence[Record]) -> list[Rollout]:
        """One scored rollout for each record; the same random numbers every time, so that evaluations compare."""
        rollouts = await self._draw(records, 1, self.run.eval.temperature, "eval")
        await score_all(rollouts, self.reward)
        return rollouts

    async def _draw(self, records: Sequence[Record], size: int, temperature: float, name: str) -> list[Rollout]:
        sampling = SamplingParams(
            max_new_tokens=self.run.sampling.max_new_tokens,
            temperature=temperature,
            stop_token_ids=self.inputs.codec.stop_token_ids,
        )
        return await sample_groups(
            records,
            size,
            workflow=self.workflow,
            engine=self.engine,
            codec=self.inputs.codec,
            sampling=sampling,
            seed=f"{self.run.seed}:{name}",
        )


@contextmanager
def open_sampler(run: GRPORun, policy: Policy, inputs: Inputs, loop: asyncio.Runner) -> Iterator[Sampler]:
    """Start engine, workflow and reward; close the engine however the run ends."""
    workflow, reward = build("workflows", run.workflow), build("rewards", run.reward)
    engine = plugins.load("engines", run.engine.name).build(run.engine, EngineContext(run.model, run.device, policy))
    try:
        yield Sampler(run, inputs, engine, workflow, reward)
    finally:
        loop.run(engine.close())


def update(engine: TrainEngine, rollouts: Sequence[Rollout], run: GRPORun) -> dict[str, float]:
    """The optimizer steps on one batch of rollouts."""
    rewards = torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float32)
    group_ids = torch.tensor([rollout.group_id for rollout in rollouts])
    advantages = group_advantages(rewards, group_ids, scale_by_std=run.algorithm.scale_by_std).tolist()
    parts = divide(rollouts, advantages, run.algorithm.updates_per_step)
    batches = [trained_batches(part, run, engine.policy) for part in parts]
    prepare(engine.policy, batches, run)
    engine.policy.model.train()
    sums: dict[str, float] = {"loss": 0.0, "num_trained_tokens": 0.0}
    steps = [update_once(engine, part, micro, run, sums) for part, micro in zip(parts, batches, strict=True)]
    count = sums.pop("num_trained_tokens")
    loss = sums.pop("loss") / len(parts)
    num_measured = count or measure(engine.policy, parts, run, sums)
    return {
        "loss": loss,
        **{name: value / num_measured for name, value in sums.items()},
        "num_trained_tokens": count,
        "grad_norm": max(step["grad_norm"] for step in steps),
        "learning_rate": steps[-1]["learning_rate"],
    }


def update_once(
    engine: TrainEngine, part: Sequence[Scored], batches: Sequence[Trained], run: GRPORun, sums: dict[str, float]
) -> dict[str, float]:
    """One optimizer step; adds its loss, and its metrics summed over tokens, to `sums`."""
    by_sequence = run.algorithm.average == "sequence"
    total = float(len(part) if by_sequence else sum(rollout.completion_length for rollout, _ in part))
    for trained in batches:
        loss, metrics = batch_loss(engine.policy, trained, run, total)
        engine.backward(loss)
        sums["loss"] += loss.item()
        add(sums, metrics)
    return engine.step()


@torch.no_grad()
def measure(policy: Policy, parts: Sequence[Sequence[Scored]], run: GRPORun, sums: dict[str, float]) -> float:
    """The metrics of a step without any gradient, in which the answers of every group are equally good.

    Returns: the number of tokens that were measured.
    """
    for trained in (trained for part in parts for trained in trained_batches(part, run, policy, keep_all=True)):
        _, metrics = batch_loss(policy, trained, run, 1.0)
        add(sums, metrics)
    return sums.pop("num_trained_tokens")


def add(sums: dict[str, float], metrics: dict[str, Tensor]) -> None:
    """Add up each metric over tokens."""
    for name, values in metrics.items():
        sums[name] = sums.get(name, 0.0) + float(values.sum())


@torch.no_grad()
def prepare(policy: Policy, batches: Sequence[Sequence[Trained]], run: GRPORun) -> None:
    """Log-probabilities that are needed before the weights change.

    With one update per step the policy is the one that sampled, so its old log-probabilities are those of the update
    itself and need no pass of their own.
    """
    policy.model.eval()
    for trained in (trained for part in batches for trained in part):
        if len(batches) > 1:
            trained.old_logprobs = policy.logprobs(trained.batch, temperature=run.sampling.temperature)[0]
        if run.algorithm.kl_coef > 0:
            trained.reference_logprobs = policy.reference_logprobs(trained.batch, temperature=run.sampling.temperature)


def batch_loss(policy: Policy, trained: Trained, run: GRPORun, total: float) -> tuple[Tensor, dict[str, Tensor]]:
    """A micro-batch's part of the step's loss, and metrics of each of its [N] trained tokens."""
    logprobs, entropy = policy.logprobs(trained.batch, temperature=run.sampling.temperature, with_entropy=True)
    assert entropy is not None
    old = trained.old_logprobs if trained.old_logprobs is not None else logprobs.detach()
    losses, metrics = grpo_loss(
        logprobs,
        old,
        trained.advantages,
        clip_low=run.algorithm.clip_low,
        clip_high=run.algorithm.clip_high,
        reference_logprobs=trained.reference_logprobs,
        kl_coef=run.algorithm.kl_coef,
    )
    positions = supervised_positions(trained.batch)
    weights = trained.batch.loss_weights[positions]
    scales = token_scales(weights, sequence_ids(trained.batch)[positions], run.algorithm.average, total)
    # KL(sampler || policy), estimator k3: 0 when engine and trainer agree on what was sampled.
    gap = old - trained.sampler_logprobs
    return (losses * scales).sum(), {
        "num_trained_tokens": weights,
        "entropy": entropy,
        "ratio_clipped_fraction": metrics["ratio_clipped"],
        "logprob_mismatch_kl": gap.exp() - 1 - gap,
        **({"kl": metrics["kl"]} if "kl" in metrics else {}),
    }


async def evaluate(sampler: Sampler, records: Sequence[Record], session: Session, *, step: int) -> dict[str, float]:
    """Reward and accuracy on held-out prompts; prints samples at the start and at the end."""
    watch = Stopwatch()
    session.policy.model.eval()
    rollouts = await sampler.held_out(records)
    session.journal.rollouts(step, rollouts, split="eval")
    if step in (0, session.total_steps):
        print_samples("Before training" if step == 0 else "After training", rollouts)
    rewards = [rollout.reward or 0.0 for rollout in rollouts]
    if step == 0 and not any(rewards):
        warn("no held-out answer has any reward yet; GRPO learns only from groups in which some answers are better")
    return {
        "eval_reward_mean": sum(rewards) / len(rewards),
        "eval_accuracy": sum(reward == 1 for reward in rewards) / len(rewards),
        "eval_completion_length_mean": sum(rollout.completion_length for rollout in rollouts) / len(rollouts),
        "evaluation_seconds": watch.read(),
    }
