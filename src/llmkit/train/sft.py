"""`llmkit train sft`: supervised fine-tuning."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmkit.algorithms.aggregate import step_total, token_scales
from llmkit.algorithms.sft import cross_entropy, dft
from llmkit.config.algorithms import SFTConfig
from llmkit.config.resolve import Resolved
from llmkit.config.runs import SFTRun
from llmkit.data.collate import collate, micro_batches
from llmkit.data.encoders import SampleEncoder
from llmkit.distributed.world import world
from llmkit.engines.training.contract import TrainEngine
from llmkit.models.logprobs import supervised_positions
from llmkit.models.packed import sequence_ids, to_device
from llmkit.models.policy import Policy
from llmkit.models.scalars import read_scalars
from llmkit.train.answers import open_answers, read_questions
from llmkit.train.closing import close_run
from llmkit.train.costs import Stopwatch, costs
from llmkit.train.dry_run.command import dry_run
from llmkit.train.dry_run.rehearsal import rehearse_updates
from llmkit.train.inputs import Inputs, open_inputs
from llmkit.train.invocation import Invocation
from llmkit.train.loaders import open_samples
from llmkit.train.session import Session
from llmkit.train.shares import empty_batch, pad, share_of
from llmkit.types import Batch, Sample


def train(resolved: Resolved[SFTRun], invocation: Invocation) -> dict[str, Any]:
    """Run it; returns the summary as plain values."""
    if invocation.dry_run:
        inputs, encoder = open_data(resolved.run, needs_weights=False)
        return dry_run(resolved, inputs, encoder, rehearse_updates(update, evaluate))
    return close_run(fit(resolved, invocation))


def open_data(run: SFTRun, *, needs_weights: bool = True) -> tuple[Inputs, SampleEncoder]:
    """Tokenizer and rows, and what makes samples of them."""
    inputs = open_inputs(run, needs_weights=needs_weights)
    return inputs, SampleEncoder(inputs.codec, run.data.model_copy(update={"max_length": inputs.max_length}))


def fit(resolved: Resolved[SFTRun], invocation: Invocation) -> Session:
    """Train to the last step; returns the closed session."""
    run = resolved.run
    inputs, encoder = open_data(run)
    loader = open_samples(inputs, encoder, run)
    held_out = inputs.read_held_out(encoder, run.eval.max_rows)
    questions = read_questions(run, inputs)
    with (
        Session(resolved, invocation, inputs, loader, command="train/sft") as session,
        open_answers(session, inputs, questions) as answers,
    ):
        policy = session.policy
        if held_out and session.start == 0:
            session.log_start(evaluate(policy, held_out, run) | answers.measure(step=0))
        for step in session.steps():
            watch = Stopwatch()
            samples = loader.next_step()
            metrics = update(session.engine, samples, run)
            seconds = watch.read()
            metrics |= {"training_seconds": seconds}
            metrics |= costs(metrics["num_tokens"], seconds, loader.counts, policy.device)
            if held_out and session.evaluates_at(step):
                with session.engine.evaluation_weights():
                    metrics |= evaluate(policy, held_out, run) | answers.measure(step)
            session.watch_loss(step, metrics["loss"], [sample.source for sample in samples])
            session.finish_step(step, metrics)
    return session


def update(engine: TrainEngine, samples: Sequence[Sample], run: SFTRun) -> dict[str, float]:
    """One optimizer step on the mean loss of `samples`, whatever the micro-batches."""
    engine.policy.model.train()
    total = weight_of(samples, run.algorithm.average)
    losses: list[Tensor] = []
    for batch in batches(samples, run.batch.tokens_per_micro_batch, engine.policy.device):
        part = batch_loss(engine.policy, batch, run.algorithm, total)
        engine.backward(part, batch.sources)
        losses.append(part.detach())
    stepped = engine.step()
    sums = {
        "loss": sum(read_scalars(losses)),
        "num_tokens": sum(len(sample.token_ids) for sample in samples),
        "num_trained_tokens": sum(weight != 0 for sample in samples for weight in sample.loss_weights),
    }
    return {**world().sum_metrics(sums), **stepped}


@torch.no_grad()
def evaluate(policy: Policy, samples: Sequence[Sample], run: SFTRun) -> dict[str, float]:
    """Cross-entropy of held-out samples, nats per trained token, and its time.

    It is the same for every loss that a run may train with, so that runs compare.
    """
    watch = Stopwatch()
    policy.model.eval()
    samples = share_of(samples)
    plain = run.algorithm.model_copy(update={"loss": "cross_entropy", "label_smoothing": 0.0})
    total = weight_of(samples, plain.average)
    parts = [
        batch_loss(policy, batch, plain, total)
        for batch in batches(samples, run.batch.tokens_per_micro_batch, policy.device)
    ]
    return {"eval_loss": world().sum([sum(read_scalars(parts))])[0], "evaluation_seconds": watch.read()}


def batch_loss(policy: Policy, batch: Batch, algorithm: SFTConfig, total: float) -> Tensor:
    """A micro-batch's part of the step's loss."""
    smoothing = algorithm.label_smoothing
    positions = supervised_positions(batch)
    scales = token_scales(batch.loss_weights[positions], sequence_ids(batch)[positions], algorithm.average, total)
    linear = algorithm.loss == "cross_entropy" and not smoothing
    found = policy.logprobs(batch, mean_logprobs=smoothing > 0, loss_scales=scales if linear else None)
    if algorithm.loss == "dft":
        losses = dft(found.logprobs)
    else:
        losses = cross_entropy(found.logprobs, found.mean_logprobs, smoothing)
    return (losses * scales).sum()


def weight_of(samples: Sequence[Sample], average: str) -> float:
    """What the losses of a step are divided by, of which `samples` are this process's share."""
    weight = sum(sum(sample.loss_weights[1:]) for sample in samples)
    num_tokens, num_sequences = world().sum([weight, len(samples)])
    return step_total(average, num_tokens=num_tokens, num_sequences=int(num_sequences))


def batches(samples: Sequence[Sample], tokens: int, device: torch.device) -> list[Batch]:
    """Micro-batches of at most `tokens` tokens, on the device."""
    found = [to_device(collate(part), device) for part in micro_batches(samples, tokens)]
    return pad(found, lambda: empty_batch(device))
