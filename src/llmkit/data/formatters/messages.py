"""OpenAI-style conversations: `messages: [{role, content, weight}]`."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.data.formatters.fields import (
    Place,
    as_messages,
    others,
    reference_answer,
    refuse_beyond_text,
    require,
    write_message,
)
from llmkit.errors import DataError
from llmkit.types import Record, Row


class Config(Section):
    """Roles are system, user, assistant and tool; a message may carry its own loss weight."""

    messages_column: str = "messages"
    """Column with the list of messages."""
    answer_column: str = "answer"
    """Column with the reference answer for rewards; rows need not have it."""


def build(config: Config) -> "Messages":
    """Make the formatter."""
    return Messages(config)


class Messages:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows with a list of role-and-content messages that are no preference pair."""
        return sum(map(self._fits, rows)) / max(len(rows), 1)

    def to_record(self, row: Row) -> Record:
        """Read one row; columns beside the conversation and the answer go to `extra`."""
        column = self._config.messages_column
        refuse_beyond_text(row)
        value = require(row, column, "formatter.messages_column")
        answer = reference_answer(row, self._config.answer_column)
        used = {column} if answer is None else {column, self._config.answer_column}
        return Record(as_messages(value, Place(row.source, column)), row.source, answer=answer, extra=others(row, used))

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write the conversation."""
        if record.chosen or record.rejected:
            raise DataError(f"{record.source}: 'messages' cannot hold a preference pair; write it as 'preference'")
        row = {self._config.messages_column: [write_message(message) for message in record.messages]}
        answer = {} if record.answer is None else {self._config.answer_column: record.answer}
        return {**row, **answer, **record.extra}

    def _fits(self, row: Row) -> bool:
        value = row.values.get(self._config.messages_column)
        if isinstance(value, str):
            looks = value.lstrip().startswith("[") and '"role"' in value
        else:
            looks = (
                isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping) and "role" in value[0]
            )
        return looks and not {"chosen", "rejected"} <= row.values.keys()
