"""How much a run computes with at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmkit.config.runs import GRPORun
from llmkit.data.codec import TextCodec
from llmkit.train.dry_run.shapes import StepShapes
from llmkit.train.rollout_batch import prompt_samples
from llmkit.train.server_engines import asks_servers
from llmkit.types import PreferencePair, Record, Sample

MOST_ANSWERS = 256
"""Completions side by side in an engine that nobody has configured."""
Item = Sample | PreferencePair | Record
"""What steps are made of: samples, pairs, or prompts."""


@dataclass(frozen=True)
class Workload:
    """Sizes of the largest pieces of work.

    Attributes:
        micro_tokens: tokens of the largest micro-batch.
        trained_tokens: those of them that carry loss.
        cached_tokens: tokens of all completions that are sampled side by side in this process, prompts included; 0
            when none are.
    """

    micro_tokens: int
    trained_tokens: int
    cached_tokens: int


def sequences(item: Item, codec: TextCodec) -> list[Sample]:
    """What an item has before anything is sampled: one sequence, or the two of a pair."""
    if isinstance(item, Sample):
        return [item]
    if isinstance(item, PreferencePair):
        return [item.chosen, item.rejected]
    return prompt_samples(codec, [item])


def length_of(run: Any, codec: TextCodec) -> Callable[[Item], int]:
    """Counts the tokens of an item, with completions at their longest and a shared prompt once."""

    def length(item: Item) -> int:
        found = [min(len(sample.token_ids), run.data.max_length) for sample in sequences(item, codec)]
        if not isinstance(run, GRPORun):
            return sum(found)
        prompts = found[0] * (1 if run.batch.share_prompts else run.algorithm.group_size)
        return prompts + run.algorithm.group_size * run.sampling.max_new_tokens

    return length


def workload(run: Any, shapes: StepShapes[Any], codec: TextCodec, num_held_out: int) -> Workload:
    """The largest pieces of work of a run."""
    items = shapes.items
    parts = [sequences(item, codec) for item in items]
    longest, total = max(shapes.lengths), sum(shapes.lengths)
    trained = sum(weight != 0 for samples in parts for sample in samples for weight in sample.loss_weights)
    cached = 0
    if isinstance(run, GRPORun):
        # A group that is longer than a micro-batch is divided.
        prompt = max(len(sample.token_ids) for samples in parts for sample in samples)
        longest = prompt + run.sampling.max_new_tokens
        trained = len(items) * run.algorithm.group_size * run.sampling.max_new_tokens
        rows = max(run.batch.prompts_per_step * run.algorithm.group_size, min(num_held_out, run.eval.max_rows))
        if not asks_servers(run):
            cached = min(rows, getattr(run.engine, "max_batch_size", rows)) * longest
    else:
        cached = answered_tokens(run, parts, num_held_out)
    micro = min(shapes.largest_step(), max(run.batch.tokens_per_micro_batch, longest))
    return Workload(micro, round(micro * trained / total), cached)


def answered_tokens(run: Any, parts: Sequence[Sequence[Sample]], num_held_out: int) -> int:
    """Tokens of the answers to held-out questions that are sampled side by side, with their questions."""
    generate = run.eval.generate
    if generate.reward is None:
        return 0
    questions = (
        next((place for place, weight in enumerate(sample.loss_weights) if weight), len(sample.token_ids))
        for samples in parts
        for sample in samples
    )
    longest = min(max(questions) + generate.max_new_tokens, run.data.max_length)
    return min(num_held_out, generate.max_rows, MOST_ANSWERS) * longest
