"""What became of the rows that were read."""

from dataclasses import dataclass
from typing import Any

from llmkit.data.contract import Encoded


@dataclass(slots=True)
class RowCounts:
    """Counts of rows; nothing is left out of training without being counted here.

    Attributes:
        rows: rows that were read.
        skipped: rows left out because they are faulty; the report of skipped rows names each.
        dropped: rows left out because they are longer than `data.max_length`.
        untrained: rows left out because they would train no token.
        truncated: rows that were cut.
        split: rows that were divided into several samples.
        tokens: tokens of the rows that were kept.
        trained_tokens: those of them that carry loss.
    """

    rows: int = 0
    skipped: int = 0
    dropped: int = 0
    untrained: int = 0
    truncated: int = 0
    split: int = 0
    tokens: int = 0
    trained_tokens: int = 0

    def add(self, encoded: Encoded[Any]) -> None:
        """Count one row."""
        self.rows += 1
        self.tokens += encoded.num_tokens
        self.trained_tokens += encoded.num_trained
        if encoded.outcome != "kept":
            setattr(self, encoded.outcome, getattr(self, encoded.outcome) + 1)

    def told(self) -> str:
        """What became of the rows that are not as they were: `3 skipped as faulty, 2 too long`."""
        parts = (
            (self.skipped, "skipped as faulty"),
            (self.dropped, "dropped as too long"),
            (self.untrained, "dropped since no token of them would be trained"),
            (self.truncated, "truncated"),
            (self.split, "split"),
        )
        return ", ".join(f"{count:,} {what}" for count, what in parts if count)
