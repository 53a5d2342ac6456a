"""Plain text to train on as it is: `{text}`, for pre-training and continued pre-training."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.data.formatters.columns import Place, as_text, others, require
from llmkit.data.formatters.detection import PROMPT_WORDS
from llmkit.data.formatters.holding import cannot_hold, refuse_unheld, with_extra
from llmkit.data.formatters.rows import refuse_beyond_text, share
from llmkit.types import Record, Row


class Config(Section):
    """No chat template is applied, and every token is trained."""

    text_column: str = "text"
    """Column with the text."""


def build(config: Config) -> "Text":
    """Make the formatter."""
    return Text(config)


class Text:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._column = config.text_column
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows with text; beside a prompt it is more likely a copy of the row, and counts less."""
        return share(rows, self._fit)

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns go to `extra`."""
        refuse_beyond_text(row, "text")
        text = as_text(require(row, self._column, "formatter.text_column"), Place(row.source, self._column))
        return Record((), row.source, text=text, extra=others(row, {self._column}))

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write the text."""
        refuse_unheld(record, "text", ("plain text",))
        if record.text is None:
            raise cannot_hold(record, "text", "a conversation")
        return with_extra({self._column: record.text}, record, "text", ())

    def _fit(self, row: Row) -> float:
        if not isinstance(row.values.get(self._column), str):
            return 0.0
        return 0.6 if any(row.values.get(column) for column in PROMPT_WORDS) else 1.0
