"""Rows with a request and a reply: `{"request": ..., "reply": ...}`."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.errors import DataError
from llmkit.types import Message, Record, Row


class Config(Section):
    """Where the texts are."""

    request_column: str = "request"
    """Column with what the user asks."""
    reply_column: str = "reply"
    """Column with what the assistant answers."""


def build(config: Config) -> "RequestReply":
    """Make the formatter."""
    return RequestReply(config)


class RequestReply:
    """The formatter; columns that it does not know go to `extra` and come back from it."""

    def __init__(self, config: Config) -> None:
        self._columns = (config.request_column, config.reply_column)

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows that have both columns."""
        fitting = sum(all(column in row.values for column in self._columns) for row in rows)
        return fitting / max(len(rows), 1)

    def to_record(self, row: Row) -> Record:
        """One question and its answer."""
        request, reply = (self._text(row, column) for column in self._columns)
        extra = {column: value for column, value in row.values.items() if column not in self._columns}
        messages = (Message("user", request), Message("assistant", reply))
        return Record(messages, row.source, answer=reply, extra=extra)

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """The row that `to_record` would read."""
        texts = (message.text for message in record.messages)
        written = {**dict(zip(self._columns, texts, strict=False)), **record.extra}
        # Whatever this format has no place for (tools, weights, a third turn) would be lost: refuse it.
        if len(record.messages) != 2 or self.to_record(Row(written, record.source)) != record:
            raise DataError(f"{record.source}: 'example_name' holds one request and one reply; write it as 'messages'")
        return written

    def _text(self, row: Row, column: str) -> str:
        value = row.values.get(column)
        if not isinstance(value, str):
            found = ", ".join(row.values)
            raise DataError(
                f"{row.source}: no text in '{column}'; the row has {found}. Is it the formatter 'auto' you want?"
            )
        return value
