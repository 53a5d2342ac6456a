"""OpenAI-style conversations: `messages: [{role, content, tool_calls, weight}]` with optional `tools`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.data.formatters.cells import is_written_list
from llmkit.data.formatters.columns import Place, label_of, missing, require
from llmkit.data.formatters.conversation import as_messages, write_messages
from llmkit.data.formatters.holding import cannot_hold, messages_and, refuse_unheld, with_extra
from llmkit.data.formatters.rows import SharedColumns, make_record, reserved, share, shared_row
from llmkit.data.formatters.turn_forms import TurnForm
from llmkit.types import Record, Row

COLUMNS = ("messages", "conversations", "conversation")
"""Where a conversation may be."""
HELD = messages_and("tool schemas", "a label", "a reference answer")


class Config(SharedColumns):
    """Roles are system (or developer), user, assistant and tool, in any order, as chat templates take them; a message
    may carry its own loss weight. Keys of messages that say nothing to the model, such as ids, are not kept."""

    messages_column: str | None = None
    """Column with the list of messages; unset looks for messages, conversations, then conversation."""
    role_key: str | None = None
    """Key of a message that says who speaks; unset takes `role`, or `from`."""
    content_key: str | None = None
    """Key of a message with what is said; unset takes `content`, or `value` beside `from`."""
    label_column: str | None = "label"
    """Column that says whether the answer at the end is a good one; rows need not have it."""


def build(config: Config) -> "Messages":
    """Make the formatter."""
    return Messages(config)


class Messages:
    """The formatter."""

    def __init__(self, config: Config, form: TurnForm | None = None) -> None:
        """
        Args:
            config: the options.
            form: keys and roles of the messages; None takes those of the options.
        """
        self._config = config
        self._form = form
        if form is None and (config.role_key is not None or config.content_key is not None):
            self._form = TurnForm(config.role_key or "role", config.content_key or "content")

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows with a list of role-and-content messages that are no preference pair."""
        return share(rows, self._fits)

    def to_record(self, row: Row) -> Record:
        """Read one row; columns beside those of the options go to `extra`."""
        config = self._config
        column = config.messages_column or _found(row)
        if column is None:
            raise missing(row, COLUMNS[0], "formatter.messages_column")
        value = require(row, column, "formatter.messages_column")
        messages = as_messages(value, Place(row.source, column), self._form)
        label = label_of(row, config.label_column)
        return make_record(row, config, {column, config.label_column}, messages, label=label)

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write the conversation in OpenAI's form."""
        config = self._config
        refuse_unheld(record, "messages", HELD)
        if not record.messages:
            raise cannot_hold(record, "messages", "a conversation without messages")
        row: dict[str, Any] = {config.messages_column or COLUMNS[0]: self._written(record)}
        row |= shared_row(record, config, json.loads(record.tools or "null"))
        if record.label is not None:
            row[config.label_column or "label"] = record.label
        return with_extra(row, record, "messages", reserved(record, config))

    def _written(self, record: Record) -> list[dict[str, Any]]:
        """The messages, under the keys of the options."""
        keys = {} if self._form is None else {"role": self._form.role_key, "content": self._form.content_key}
        written = write_messages(record.messages)
        return [{keys.get(key, key): value for key, value in message.items()} for message in written]

    def _fits(self, row: Row) -> bool:
        if {"chosen", "rejected"} <= row.values.keys():
            return False
        columns = COLUMNS if self._config.messages_column is None else (self._config.messages_column,)
        role_key = self._config.role_key or "role"
        return any(_is_conversation(row.values.get(column), role_key) for column in columns)


def _found(row: Row) -> str | None:
    """The first column that may hold the conversation."""
    return next((column for column in COLUMNS if column in row.values), None)


def _is_conversation(value: Any, role_key: str) -> bool:
    if is_written_list(value):
        return f'"{role_key}"' in value or f"'{role_key}'" in value
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping) and role_key in value[0]
