"""The prompts of a run, one after another, each with the number of its row."""

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from llmkit import plugins
from llmkit.config.rollout import RolloutRun
from llmkit.config.schema import PromptDataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Dataset, Fingerprinted, Formatter, Sized, Stream, choose_formatter
from llmkit.data.counts import RowCounts
from llmkit.data.encoders import PromptEncoder
from llmkit.data.every_row import every_row
from llmkit.data.loading.intake import take_in
from llmkit.data.preparing.encode_pool import Readable, encode_rows
from llmkit.data.row_errors import RowErrors
from llmkit.errors import DataError
from llmkit.rollout.ledger import Done
from llmkit.types import Record

REPORT = "skipped_rows.jsonl"
CHUNK_ROWS = 16
"""Rows that are tokenized together: few, so that the first prompt is there soon."""


class Prompt(NamedTuple):
    """A group to make.

    Attributes:
        group_id: number of the row, from 0.
        members: which of its rollouts are to be made.
    """

    group_id: int
    record: Record
    members: list[int]


@dataclass
class PromptSource:
    """The rows of a run and how they become prompts.

    Attributes:
        counts: what became of the rows so far.
    """

    run: RolloutRun
    codec: TextCodec
    data: Dataset | Stream
    formatter: Formatter
    counts: RowCounts = field(default_factory=RowCounts)

    @property
    def num_rows(self) -> int | None:
        """Rows that the run reads; None when a stream does not know."""
        length = len(self.data) if isinstance(self.data, Sized) else None
        limit = self.run.max_rows
        return length if limit is None else limit if length is None else min(limit, length)

    @property
    def fingerprint(self) -> str | None:
        """Tells these rows from others; None where it cannot be had at once, as of a stream."""
        return (
            self.data.fingerprint() if isinstance(self.data, Sized) and isinstance(self.data, Fingerprinted) else None
        )

    def prompts(self, max_length: int, done: Done, report: Path | None) -> Generator[Prompt, None, None]:
        """Every prompt that has rollouts to be made; rows are read as prompts are asked for.

        Args:
            max_length: most tokens of a prompt and its completion.
            done: what is there already.
            report: of rows that are left out as faulty.
        Raises:
            DataError: a row cannot be used, and the run does not skip such rows.
        """
        data = self.run.data
        limits = PromptDataConfig.model_validate({"max_length": max_length, "overlength": data.overlength})
        encoder = PromptEncoder(self.codec, limits, self.run.sampling.max_new_tokens)
        errors = RowErrors(data.on_error, data.max_skipped, report)
        waiting: deque[tuple[int, list[int]]] = deque()

        def unfinished() -> Iterator[Readable]:
            for number, row in enumerate(every_row(self.data, self.run.max_rows)):
                if members := done.missing(number, self.run.group_size):
                    waiting.append((number, members))
                    yield row

        results = encode_rows(
            unfinished(), self.formatter, encoder, num_workers=data.num_workers, chunk_rows=CHUNK_ROWS
        )
        try:
            for result in results:
                number, members = waiting.popleft()
                for record in take_in(result, errors, self.counts):
                    yield Prompt(number, record, members)
        finally:
            results.close()

    def first(self, max_length: int) -> Prompt:
        """The first prompt.

        Raises:
            DataError: there is none, or a row before it cannot be used.
        """
        looking = PromptSource(self.run, self.codec, self.data, self.formatter)
        found = next(islice(looking.prompts(max_length, Done(), None), 1), None)
        if found is None:
            raise DataError(f"No prompt to sample for: {looking.counts.told() or 'the data set has no rows'}")
        return found


def open_prompts(run: RolloutRun, codec: TextCodec) -> PromptSource:
    """Open the data set.

    Raises:
        DataError: it cannot be read, or no formatter fits.
    """
    data = plugins.load("datasets", run.dataset.name).build(run.dataset)
    formatter = plugins.load("formatters", run.formatter.name).build(run.formatter)
    return PromptSource(run, codec, data, choose_formatter(formatter, data))
