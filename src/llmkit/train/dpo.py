"""`llmkit train dpo`: direct preference optimization."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from llmkit.algorithms.aggregate import sequence_sums
from llmkit.algorithms.dpo import dpo_loss
from llmkit.algorithms.preference import Constants, Pairs
from llmkit.config.algorithms import DPOConfig
from llmkit.config.resolve import Resolved
from llmkit.config.runs import DPORun
from llmkit.config.schema import PairBatchConfig
from llmkit.data.collate import collate, collate_groups, micro_batches
from llmkit.data.encoders import PairEncoder
from llmkit.distributed.world import world
from llmkit.engines.training.contract import TrainEngine
from llmkit.errors import ConfigError
from llmkit.models.dropout import DROPOUT_IS_OFF, disable_dropout
from llmkit.models.logprobs import supervised_positions
from llmkit.models.packed import sequence_ids, to_device
from llmkit.models.policy import Policy
from llmkit.models.precomputed import data_digest, precompute, weights_digest
from llmkit.models.scalars import Sums
from llmkit.terminal import note
from llmkit.train.answers import Answers, NoAnswers, open_answers, read_questions
from llmkit.train.closing import close_run
from llmkit.train.costs import Stopwatch, costs
from llmkit.train.dry_run.command import dry_run
from llmkit.train.dry_run.rehearsal import rehearse_updates
from llmkit.train.idle_settings import warn_of_idle_settings, warn_of_repeated_prompts
from llmkit.train.inputs import Inputs, open_inputs
from llmkit.train.invocation import Invocation
from llmkit.train.loaders import open_samples
from llmkit.train.session import Session
from llmkit.train.shares import empty_batch, pad, share_of
from llmkit.types import Batch, PreferencePair

PAIRS_AT_A_TIME = 1024
"""Pairs that are batched together when the reference model is asked about all of them."""


def train(resolved: Resolved[DPORun], invocation: Invocation) -> dict[str, Any]:
    """Run it; returns the summary as plain values."""
    run = resolved.run
    inputs = open_inputs(run, needs_weights=not invocation.dry_run)
    encoder = PairEncoder(inputs.codec, run.data.model_copy(update={"max_length": inputs.max_length}))
    warn_of_idle_settings(run.algorithm)
    check_precomputing(run, inputs)
    if invocation.dry_run:
        return dry_run(resolved, inputs, encoder, rehearse_updates(update, evaluate))
    loader = open_samples(inputs, encoder, run)
    held_out = inputs.read_held_out(encoder, run.eval.max_rows)
    questions = read_questions(run, inputs)
    with (
        Session(
            resolved,
            invocation,
            inputs,
            loader,
            command="train/dpo",
            with_reference=run.algorithm.needs_reference,
        ) as session,
        open_answers(session, inputs, questions) as answers,
    ):
        policy = session.policy
        # Policy and reference must differ by training alone.
        if disable_dropout(policy.model):
            note(DROPOUT_IS_OFF)
        warn_of_repeated_prompts(policy, run.batch)
        if run.algorithm.precompute_reference and run.algorithm.needs_reference:
            precompute_reference(policy, [*loader.read_all(), *held_out], run.batch)
        if held_out and session.start == 0:
            session.log_start(measure(policy, held_out, run, answers, step=0))
        for step in session.steps():
            watch = Stopwatch()
            pairs = loader.next_step()
            metrics = update(session.engine, pairs, run)
            seconds = watch.read()
            metrics |= {"training_seconds": seconds}
            metrics |= costs(metrics["num_tokens"], seconds, loader.counts, policy.device)
            if held_out and session.evaluates_at(step):
                with session.engine.evaluation_weights():
                    metrics |= measure(policy, held_out, run, answers, step)
            session.watch_loss(step, metrics["loss"], [pair.chosen.source for pair in pairs])
            session.finish_step(step, metrics)
    return close_run(session)


def update(engine: TrainEngine, pairs: Sequence[PreferencePair], run: DPORun) -> dict[str, float]:
    """One optimizer step on the mean loss of `pairs`, whatever the micro-batches."""
    engine.policy.model.train()
    micro = batches(pairs, run.batch, engine.policy)
    constants = loss_constants(engine.policy, micro, run.algorithm)
    num_tokens = sum(len(pair.chosen.token_ids) + len(pair.rejected.token_ids) for pair in pairs)
    num_pairs, num_tokens = world().sum([len(pairs), num_tokens])
    sums = Sums()
    for batch in micro:
        losses, metrics = batch_losses(engine.policy, batch, run.algorithm, constants)
        engine.backward(losses.sum() / num_pairs, batch.sources)
        sums.add({"loss": losses.detach(), **metrics})
    stepped = engine.step()
    return {
        **{name: value / num_pairs for name, value in world().sum_metrics(sums.read()).items()},
        **stepped,
        "num_tokens": int(num_tokens),
    }


def measure(
    policy: Policy, pairs: Sequence[PreferencePair], run: DPORun, answers: Answers | NoAnswers, step: int
) -> dict[str, float]:
    """What is measured on held-out pairs, and on answers to their prompts.

    `eval_accuracy` is that of the pairs, so the share of right answers is `eval_answer_accuracy`.
    """
    answered = answers.measure(step)
    if answered:
        answered["eval_answer_accuracy"] = answered.pop("eval_accuracy")
    return evaluate(policy, pairs, run) | answered


@torch.no_grad()
def evaluate(policy: Policy, pairs: Sequence[PreferencePair], run: DPORun) -> dict[str, float]:
    """Loss and share of pairs ranked rightly, on held-out pairs."""
    watch = Stopwatch()
    policy.model.eval()
    num_pairs = len(pairs)
    micro = batches(share_of(pairs), run.batch, policy)
    constants = loss_constants(policy, micro, run.algorithm)
    sums = Sums()
    for batch in micro:
        losses, metrics = batch_losses(policy, batch, run.algorithm, constants)
        sums.add({"loss": losses, "accuracy": metrics["rewards_accuracy"], "margin": metrics["rewards_margin"]})
    return {
        **{f"eval_{name}": value / num_pairs for name, value in world().sum_metrics(sums.read()).items()},
        "evaluation_seconds": watch.read(),
    }


def batch_losses(
    policy: Policy, batch: Batch, algorithm: DPOConfig, constants: Constants
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and metrics of each pair."""
    return dpo_loss(compare(policy, batch, algorithm), algorithm.weights, constants)


def compare(policy: Policy, batch: Batch, algorithm: DPOConfig) -> Pairs:
    """The log-ratios of a batch that holds chosen and rejected answers in turn."""
    answers = sum_over_answers(batch, policy.logprobs(batch).logprobs)
    lengths = sum_over_answers(batch, torch.ones_like(supervised_positions(batch), dtype=answers.dtype))
    reference = torch.zeros_like(answers)
    if algorithm.needs_reference:
        reference = sum_over_answers(batch, policy.reference_logprobs(batch))
    ratios = answers - reference
    if not len(supervised_positions(batch)):
        # An empty micro-batch, whose pass others wait for, is of no pair.
        ratios, lengths, answers = ratios[:0], lengths[:0], answers[:0]
    return Pairs(ratios[0::2], ratios[1::2], lengths[0::2], lengths[1::2], answers[0::2])


@torch.no_grad()
def loss_constants(policy: Policy, micro: Sequence[Batch], algorithm: DPOConfig) -> Constants:
    """The numbers in the losses; what concerns the whole step takes a pass of its own, before any gradient."""
    mean_reward = 0.0
    if "bco" in algorithm.weights:
        pairs = [compare(policy, batch, algorithm) for batch in micro]
        rewards = torch.cat([ratio for pair in pairs for ratio in (pair.chosen, pair.rejected)] or [torch.zeros(0)])
        everywhere = torch.cat(world().gather_shares(rewards.cpu()))
        mean_reward = algorithm.beta * everywhere.mean().item()
    return Constants(algorithm.beta, algorithm.label_smoothing, algorithm.discopop_temperature, mean_reward)


def check_precomputing(run: DPORun, inputs: Inputs) -> None:
    """Refuse to look ahead in a stream, and to ask a model that no process has whole.

    Raises:
        ConfigError: names both settings.
    """
    if run.algorithm.precompute_reference and (world().dimensions.is_sharded or world().dimensions.tensor > 1):
        raise ConfigError(
            "algorithm.precompute_reference=true asks the whole reference model in each process, and "
            f"parallel.strategy={run.parallel.strategy} divides it; set it to false, or use parallel.strategy=ddp with "
            "parallel.tensor=1"
        )
    if run.algorithm.precompute_reference and inputs.num_rows is None:
        raise ConfigError(
            "algorithm.precompute_reference=true reads every pair before the first step, and dataset.streaming=true "
            "does not know how many there are; set one of them to false"
        )


def precompute_reference(policy: Policy, pairs: Sequence[PreferencePair], batch: PairBatchConfig) -> None:
    """Ask the reference model about all pairs, or the cache if it was asked before, and let go of it."""
    policy.model.eval()
    note(f"Reference log-probabilities of {len(pairs):,} pairs are computed once, unless the cache has them.")

    def all_batches() -> Iterator[Batch]:
        for start in range(0, len(pairs), PAIRS_AT_A_TIME):
            yield from batches(pairs[start : start + PAIRS_AT_A_TIME], batch, policy)

    if policy.reference is not None:
        weights = policy.reference.parameters()
    else:  # those of the base model, which an adapter leaves as they are
        weights = (parameter for parameter in policy.model.parameters() if not parameter.requires_grad)
    dtype = str(policy.compute_dtype).removeprefix("torch.")
    name = f"{weights_digest(weights)}-{dtype}-{data_digest(all_batches())}"
    policy.precomputed = precompute(name, all_batches, policy.reference_logprobs)
    policy.reference = None


def sum_over_answers(batch: Batch, values: Tensor) -> Tensor:
    """[B] weighted sum of [N] values over each sequence's answer."""
    positions = supervised_positions(batch)
    weighted = values * batch.loss_weights[positions]
    return sequence_sums(weighted, sequence_ids(batch)[positions], len(batch.sequence_ends))


def batches(pairs: Sequence[PreferencePair], batch: PairBatchConfig, policy: Policy) -> list[Batch]:
    """Micro-batches in which each chosen answer is followed by its rejected one, and their prompt is there once."""
    groups = [[pair.chosen, pair.rejected] for pair in pairs]
    if batch.share_prompts and policy.can_share_prompts:
        found = [collate_groups(part) for part in micro_batches(groups, batch.tokens_per_micro_batch)]
    else:
        parts = micro_batches(pairs, batch.tokens_per_micro_batch)
        found = [collate([side for pair in part for side in (pair.chosen, pair.rejected)]) for part in parts]
    return pad([to_device(one, policy.device) for one in found], lambda: empty_batch(policy.device))
