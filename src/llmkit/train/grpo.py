"""`llmkit train grpo`: reinforcement learning from verifiable rewards."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from llmkit.config.resolve import Resolved
from llmkit.config.runs import GRPORun
from llmkit.data.encoders import PromptEncoder
from llmkit.engines.servers.fronts import check_servers, check_takes_weights
from llmkit.models.dropout import DROPOUT_IS_OFF, disable_dropout
from llmkit.terminal import note, warn
from llmkit.train.answers import reward_metrics, show_held_out
from llmkit.train.closing import close_run
from llmkit.train.costs import Stopwatch, costs
from llmkit.train.dry_run.command import dry_run
from llmkit.train.dry_run.sampling import rehearse_sampling
from llmkit.train.grpo_update import update
from llmkit.train.idle_settings import warn_of_idle_settings, warn_of_repeated_prompts
from llmkit.train.inputs import open_inputs
from llmkit.train.invocation import Invocation
from llmkit.train.loaders import open_prompts
from llmkit.train.mismatch import MismatchAlarm
from llmkit.train.prompt_queue import PromptQueue
from llmkit.train.rollout_batch import metrics_of
from llmkit.train.sampler import Sampler, open_sampler
from llmkit.train.server_engines import asks_servers, describe_servers
from llmkit.train.session import Session
from llmkit.types import Record


def train(resolved: Resolved[GRPORun], invocation: Invocation) -> dict[str, Any]:
    """Run it; returns the summary as plain values."""
    run = resolved.run
    check_takes_weights(run.engine.name)
    # The threads are the trainer's; servers have the machine's cores.
    check_servers(run.engine, run.model, run.device.model_copy(update={"threads": None}))
    inputs = open_inputs(run, needs_weights=not invocation.dry_run)
    data = run.data.model_copy(update={"max_length": inputs.max_length})
    encoder = PromptEncoder(inputs.codec, data, run.sampling.max_new_tokens)
    warn_of_idle_settings(run.algorithm, run.sampling.temperature)
    if invocation.dry_run:
        figures = dry_run(resolved, inputs, encoder, rehearse_sampling)
        if asks_servers(run):
            note(describe_servers(run))
        return figures
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
        open_sampler(
            run,
            session.sampling_policy,
            inputs,
            loop,
            session.refresh_sampling,
            directory=session.directory.path,
        ) as sampler,
    ):
        policy = session.policy
        if disable_dropout(policy.model):
            note(DROPOUT_IS_OFF)
        warn_of_repeated_prompts(policy, run.batch)
        alarm = MismatchAlarm(run.algorithm, run.engine.name)
        loop.run(sampler.load_weights(session.start))
        if held_out and session.start == 0:
            session.log_start(loop.run(evaluate(sampler, held_out, session, step=0)))
        for step in session.steps():
            policy.model.eval()
            drawn = loop.run(sampler.draw(prompts, step))
            watch = Stopwatch()
            metrics = metrics_of(drawn.rollouts, step - 1)
            metrics |= update(session.engine, drawn.kept, run, partial(alarm.check, step))
            seconds = drawn.seconds | {"training_seconds": watch.read()}
            loop.run(sampler.load_weights(step))
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
            await sampler.load_weights(step)
        rollouts = await sampler.held_out(records)
    if are_others or not asks_servers(sampler.run):
        # Also makes void what the engine keeps of these prompts: a run that is resumed here has not computed them.
        await sampler.load_weights(step)
    show_held_out(session, step, rollouts)
    metrics = reward_metrics(rollouts)
    if step == 0 and not any(rollout.reward for rollout in rollouts):
        warn("no held-out answer has any reward yet; GRPO learns only from groups in which some answers are better")
    return metrics | {"evaluation_seconds": watch.read()}
