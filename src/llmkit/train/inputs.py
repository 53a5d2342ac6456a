"""What a training run reads: tokenizer, training rows, held-out rows."""

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from llmkit import plugins
from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.config.schema import RowsConfig
from llmkit.data.chat.prefix_property import PrefixReport, check_prefix_property
from llmkit.data.codec import TextCodec
from llmkit.data.contract import (
    Dataset,
    Encoder,
    Formatter,
    Ordered,
    Sized,
    Stream,
    choose_formatter,
    first_rows,
    read_row,
)
from llmkit.data.counts import RowCounts
from llmkit.data.loading.intake import read_items
from llmkit.data.opening import open_codec
from llmkit.data.preparing.encode_pool import Readable, encode_rows
from llmkit.data.row_errors import RowErrors
from llmkit.data.splitting import split
from llmkit.errors import DataError
from llmkit.models.loading import context_length
from llmkit.terminal import note, warn
from llmkit.train.memory_settings import advising

T = TypeVar("T")
REPORT = "skipped_rows.jsonl"
PEEKED_ROWS = 64
"""Rows that a dry run looks through for the first one that is kept."""


@dataclass
class Inputs:
    """Tokenizer and data of a run.

    Attributes:
        codec: the tokenizer with its chat template.
        data: rows to train on.
        held_out: rows to measure on; None when the run has none.
        formatter: reads the training rows.
        held_out_formatter: reads the held-out ones.
        max_length: most tokens of a sample: what the run allows, within the model's context.
        errors: what happens to faulty rows.
        template: whether the chat template keeps earlier turns as they are.
    """

    codec: TextCodec
    data: Dataset | Stream
    held_out: Dataset | Stream | None
    formatter: Formatter
    held_out_formatter: Formatter
    max_length: int
    errors: RowErrors
    template: PrefixReport

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer, or the one that was named."""
        return self.codec.tokenizer

    @property
    def num_rows(self) -> int | None:
        """Rows to train on; None when a stream does not know."""
        return len(self.data) if isinstance(self.data, Sized) else None

    def read_held_out(self, encoder: Encoder[T], limit: int) -> list[T]:
        """What the encoder makes of the first `limit` held-out rows; nothing when the run has none.

        Raises:
            DataError: a row cannot be used, and the run does not skip such rows.
        """
        if self.held_out is None:
            return []
        counts = RowCounts()
        items = self._encode(rows_to_measure(self.held_out, limit), self.held_out_formatter, encoder, counts)
        if counts.dropped + counts.untrained + counts.skipped:
            warn(f"of {counts.rows} held-out rows, {counts.told()}")
        return items

    def peek(self, encoder: Encoder[T]) -> T:
        """The first training item, before anything else is read.

        Raises:
            DataError: a row cannot be used, or none of the first ones is kept.
        """
        counts = RowCounts()
        for count in (1, PEEKED_ROWS):
            items = self._encode(first_rows(self.data, count), self.formatter, encoder, counts)
            if items:
                return items[0]
        raise DataError(f"None of the first {PEEKED_ROWS} rows can be trained on: {counts.told()}")

    def sample(self, encoder: Encoder[T], count: int) -> list[T]:
        """What the encoder makes of `count` rows from all over the training data, or of a stream's first ones.

        Raises:
            DataError: a row cannot be used, or none of them is kept.
        """
        rows = first_rows(self.data, count)
        if isinstance(self.data, Sized) and len(self.data) > count:
            rows = [read_row(self.data, number * len(self.data) // count) for number in range(count)]
        counts = RowCounts()
        items = self._encode(rows, self.formatter, encoder, counts)
        if not items:
            raise DataError(f"None of {counts.rows} rows can be trained on: {counts.told()}")
        return items

    def _encode(
        self, rows: Sequence[Readable], formatter: Formatter, encoder: Encoder[T], counts: RowCounts
    ) -> list[T]:
        with closing(encode_rows(rows, formatter, encoder, num_workers=0)) as results:
            return read_items(results, self.errors, counts)


def rows_to_measure(data: Dataset | Stream, limit: int) -> Sequence[Readable]:
    """The first rows; of several sources, which lie one behind the other, rows of each by its size."""
    if not isinstance(data, Ordered) or len(data) <= limit:
        return first_rows(data, limit)
    return [read_row(data, number * len(data) // limit) for number in range(limit)]


def open_inputs(run: SFTRun | DPORun | GRPORun, *, needs_weights: bool = True) -> Inputs:
    """Open tokenizer and data, before the model: their faults show at once.

    Args:
        needs_weights: refuse a model directory without weights.

    Raises:
        ModelError: there is no tokenizer, or its chat template is not to be had.
        DataError: a data set cannot be read.
    """
    data = build("datasets", run.dataset)
    held_out = build("datasets", run.eval_dataset) if run.eval_dataset is not None else None
    formatter = choose_formatter(build("formatters", run.formatter), data)
    held_out_formatter = formatter
    if held_out is not None:
        held_out_formatter = choose_formatter(build("formatters", run.formatter), held_out)
        if run.data.validation_fraction:
            warn("data.validation_fraction has no effect: eval_dataset names the held-out rows")
    elif run.data.validation_fraction:
        data, held_out = split(data, run.data.validation_fraction, run.seed)
    with advising(run):
        codec = open_codec(run.model, special_tokens_in_text=run.data.special_tokens_in_text)
    template = check_prefix_property(codec)
    if not template.holds:
        warn(str(template))
    with advising(run):
        context = context_length(run.model, needs_weights=needs_weights)
    if context < run.data.max_length:
        note(f"The model's context of {context} tokens is less than data.max_length={run.data.max_length}: it counts.")
    max_length = min(run.data.max_length, context)
    return Inputs(codec, data, held_out, formatter, held_out_formatter, max_length, row_errors(run.data), template)


def row_errors(config: RowsConfig) -> RowErrors:
    """What a run does with faulty rows; the report lies in a scratch directory until the run has one of its own."""
    scratch = Path(tempfile.mkdtemp(prefix="llmkit-")) if config.on_error == "skip" else None
    return RowErrors(config.on_error, config.max_skipped, scratch / REPORT if scratch else None)


def build(kind: str, section: Any) -> Any:
    """What the plugin that a section names makes of it."""
    return plugins.load(kind, section.name).build(section)
