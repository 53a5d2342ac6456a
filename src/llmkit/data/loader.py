"""Rows to samples, a step's worth at a time, resumable to the row."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from llmkit.config.schema import DataConfig, PromptDataConfig, SFTDataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Dataset, Formatter, choose_formatter, to_record
from llmkit.data.counts import RowCounts
from llmkit.data.sampler import RowSampler
from llmkit.data.turns import prompt_messages
from llmkit.errors import DataError
from llmkit.types import PreferencePair, Record, Sample

T = TypeVar("T")


class Loader(Generic[T]):
    """Reads rows in the sampler's order and encodes them when they are taken.

    Attributes:
        sampler: decides the order and knows the epoch.
        counts: what became of the rows so far.
    """

    def __init__(
        self,
        dataset: Dataset,
        formatter: Formatter,
        encode: Callable[[Record, RowCounts], T | None],
        sampler: RowSampler,
    ) -> None:
        """Put the parts together.

        Args:
            dataset: the rows.
            formatter: reads them; one that chooses by the rows does so now.
            encode: makes what is trained of a record and adds to the counts; None when the record is dropped.
            sampler: draws row numbers of `dataset`.
        Raises:
            DataError: no formatter fits, or several do.
        """
        self._dataset = dataset
        self._formatter = choose_formatter(formatter, dataset)
        self._encode = encode
        self.sampler = sampler
        self.counts = RowCounts()

    def __len__(self) -> int:
        """Rows in an epoch, dropped ones included."""
        return len(self._dataset)

    def take(self, count: int) -> list[T]:
        """The next `count` items; dropped rows are replaced by the rows after them.

        Raises:
            DataError: a row cannot be used, or a whole epoch was dropped.
        """
        taken: list[T] = []
        dropped_in_a_row = 0
        while len(taken) < count:
            (index,) = self.sampler.take(1)
            item = self._encode(to_record(self._dataset[index], self._formatter), self.counts)
            if item is not None:
                taken.append(item)
                dropped_in_a_row = 0
                continue
            dropped_in_a_row += 1
            if dropped_in_a_row >= len(self._dataset):
                place = self._dataset[index].source.path
                raise DataError(f"{place}: every row is longer than data.max_length and was dropped; raise it")
        return taken

    def read_all(self, limit: int | None = None) -> list[T]:
        """Every item in the order of the rows, for evaluation; the sampler stays where it is.

        Args:
            limit: rows to read, from the first; None reads all.
        """
        num_rows = len(self._dataset) if limit is None else min(limit, len(self._dataset))
        records = (to_record(self._dataset[index], self._formatter) for index in range(num_rows))
        items = (self._encode(record, self.counts) for record in records)
        return [item for item in items if item is not None]

    def state_dict(self) -> dict[str, Any]:
        """Position and counts, as JSON can hold them."""
        return {"sampler": self.sampler.state_dict(), "counts": asdict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last row that was taken.

        Raises:
            CheckpointError: the state belongs to other data or another order.
        """
        self.sampler.load_state_dict(state["sampler"])
        self.counts = RowCounts(**state["counts"])


def load_samples(
    dataset: Dataset, formatter: Formatter, codec: TextCodec, config: SFTDataConfig, seed: int
) -> Loader[Sample]:
    """Conversations as tokens with loss weights, for supervised fine-tuning."""

    def encode(record: Record, counts: RowCounts) -> Sample | None:
        return codec.sample(record, config.train_on, config.max_length, config.overlength, counts)

    return Loader(dataset, formatter, encode, RowSampler(len(dataset), seed, config.shuffle))


def load_pairs(
    dataset: Dataset, formatter: Formatter, codec: TextCodec, config: DataConfig, seed: int
) -> Loader[PreferencePair]:
    """Preference pairs as tokens, for preference training."""

    def encode(record: Record, counts: RowCounts) -> PreferencePair | None:
        return codec.pair(record, config.max_length, config.overlength, counts)

    return Loader(dataset, formatter, encode, RowSampler(len(dataset), seed, config.shuffle))


def load_prompts(
    dataset: Dataset,
    formatter: Formatter,
    codec: TextCodec,
    config: PromptDataConfig,
    seed: int,
    *,
    max_new_tokens: int,
) -> Loader[Record]:
    """Records whose prompt leaves room for a completion of `max_new_tokens`."""

    def keep(record: Record, counts: RowCounts) -> Record | None:
        counts.rows += 1
        length = len(codec.prompt_ids(prompt_messages(record), record.source))
        if length + max_new_tokens <= config.max_length:
            counts.tokens += length
            return record
        if config.overlength == "error":
            raise DataError(
                f"{record.source}: a prompt of {length} tokens and sampling.max_new_tokens={max_new_tokens} are more "
                f"than data.max_length={config.max_length}. Change one of them, or choose --set data.overlength=drop"
            )
        counts.dropped += 1
        return None

    return Loader(dataset, formatter, keep, RowSampler(len(dataset), seed, config.shuffle))
