"""`llmkit train grpo`: reinforcement learning from verifiable rewards."""

import asyncio
from collections.abc import Sequence
from typing import Any

from llmkit.config.resolve import Resolved
from llmkit.config.runs import GRPORun
from llmkit.data.encoders import PromptEncoder
from llmkit.models.dropout import DROPOUT_IS_OFF, disable_dropout
from llmkit.train.closing import close_run
from llmkit.train.console import note, print_samples, warn
from llmkit.train.costs import Stopwatch, costs
from llmkit.train.dry_run import dry_run
from llmkit.train.grpo_update import update
from llmkit.train.idle_settings import warn_of_idle_settings, warn_of_repeated_prompts
from llmkit.train.inputs import open_inputs
from llmkit.train.invocation import Invocation
from llmkit.train.loaders import open_prompts
from llmkit.train.prompt_queue import PromptQueue
from llmkit.train.rollout_batch import metrics_of, prompt_samples
from llmkit.train.sampler import Sampler, open_sampler
from llmkit.train.session import Session
from llmkit.types import Record


def train(resolved: Resolved[GRPORun], invocation: Invocation) -> dict[str, Any]:
    """Run it; returns the summary as plain values."""
    run = resolved.run
    inputs = open_inputs(run)
    data = run.data.model_copy(update={"max_length": inputs.max_length})
    encoder = PromptEncoder(inputs.codec, data, run.sampling.max_new_tokens)
    warn_of_idle_settings(run.algorithm, run.sampling.temperature)
    if invocation.dry_run:
        return dry_run(
            resolved,
            inputs,
            prompt_samples(inputs.codec, [inputs.peek(encoder)]),
            rows_per_step=run.batch.prompts_per_step * run.algorithm.group_size,
            completion_tokens=run.sampling.max_new_tokens,
        )
    prompts = PromptQueue(open_prompts(inputs, encoder, run))
    held_out = inputs.read_held_out(encoder, run.eval.max_rows)
    with (
        Session(
            resolved,
            invocation,
            inputs,
            prompts,
            command="train/grpo",
            with_reference=run.algorithm.needs_reference,
        ) as session,
        asyncio.Runner() as loop,
        open_sampler(run, session.policy, inputs, loop) as sampler,
    ):
        policy = session.policy
        if disable_dropout(policy.model):
            note(DROPOUT_IS_OFF)
        warn_of_repeated_prompts(policy, run.batch)
        loop.run(sampler.engine.load_weights(session.start))
        if held_out and session.start == 0:
            session.log_start(loop.run(evaluate(sampler, held_out, session, step=0)))
        for step in session.steps():
            policy.model.eval()
            drawn = loop.run(sampler.draw(prompts, step))
            watch = Stopwatch()
            metrics = metrics_of(drawn.rollouts, step - 1) | update(session.engine, drawn.kept, run)
            seconds = drawn.seconds | {"training_seconds": watch.read()}
            loop.run(sampler.engine.load_weights(step))
            seconds["sync_seconds"] = watch.read()
            metrics |= seconds
            metrics |= costs(metrics["num_tokens"], sum(seconds.values()), prompts.counts, policy.device)
            if run.algorithm.max_sampling_rounds > 1:
                metrics |= {"num_sampling_rounds": drawn.num_rounds, "num_groups_dropped": drawn.num_dropped}
            session.journal.rollouts(step, drawn.rollouts)
            if held_out and session.evaluates_at(step):
                metrics |= loop.run(evaluate(sampler, held_out, session, step=step))
            session.finish_step(step, metrics)
    return close_run(session)


async def evaluate(sampler: Sampler, records: Sequence[Record], session: Session, *, step: int) -> dict[str, float]:
    """Reward and accuracy on held-out prompts; prints samples at the start and at the end."""
    watch = Stopwatch()
    session.policy.model.eval()
    with session.engine.evaluation_weights() as are_others:
        if are_others:
            await sampler.engine.load_weights(step)
        rollouts = await sampler.held_out(records)
    # Also makes void what the engine keeps of these prompts: a run that is resumed here has not computed them.
    await sampler.engine.load_weights(step)
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
