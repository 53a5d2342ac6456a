"""What became of the rows that were read."""

from dataclasses import dataclass


@dataclass(slots=True)
class RowCounts:
    """Counts since the start of a run; nothing is left out of training without being counted here.

    Attributes:
        rows: rows that were read.
        dropped: rows left out because they are longer than `data.max_length`.
        truncated: rows whose end was cut off.
        tokens: tokens of the rows that were kept.
        trained_tokens: those of them that carry loss.
    """

    rows: int = 0
    dropped: int = 0
    truncated: int = 0
    tokens: int = 0
    trained_tokens: int = 0
