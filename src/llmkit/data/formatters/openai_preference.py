"""OpenAI's fine-tuning form of preferences: `{input: {messages, tools}, preferred_output, non_preferred_output}`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.data.formatters.cells import from_cell
from llmkit.data.formatters.columns import Place, others, require
from llmkit.data.formatters.conversation import as_messages, write_messages
from llmkit.data.formatters.holding import cannot_hold, messages_and, refuse_unheld, with_extra
from llmkit.data.formatters.rows import refuse_same, share
from llmkit.data.formatters.tool_calls import as_tools
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Message, Record, Row

HELD = messages_and("a preference pair", "tool schemas")
KEYS = ("messages", "tools", "parallel_tool_calls")
PARALLEL = "parallel_tool_calls"
"""Whether the model may call several tools at once; kept as an extra column of the record."""


class Config(Section):
    """The prompt is a conversation that ends before the answer; both answers are lists of messages."""

    input_column: str = "input"
    """Column with the prompt: an object with messages, tools and parallel_tool_calls."""
    preferred_column: str = "preferred_output"
    """Column with the messages of the preferred answer."""
    non_preferred_column: str = "non_preferred_output"
    """Column with the messages of the other answer."""


def build(config: Config) -> "OpenAIPreference":
    """Make the formatter."""
    return OpenAIPreference(config)


class OpenAIPreference:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows that have the prompt and both answers."""
        config = self._config
        columns = (config.input_column, config.preferred_column, config.non_preferred_column)
        return share(rows, lambda row: all(row.values.get(column) for column in columns))

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns, and `parallel_tool_calls`, go to `extra`."""
        config = self._config
        place = Place(row.source, config.input_column)
        asked = from_cell(require(row, config.input_column, "formatter.input_column"), place, "an object")
        if not isinstance(asked, Mapping):
            raise DataError(f"{place} must be an object with 'messages', this is {kind_of(asked)}")
        unknown = next((key for key, value in asked.items() if key not in KEYS and value is not None), None)
        if unknown is not None:
            raise DataError(f"{place} has '{unknown}'; known keys: {', '.join(KEYS)}. Put it into a column of its own")
        preferred = _answer(row, config.preferred_column, "formatter.preferred_column")
        non_preferred = _answer(row, config.non_preferred_column, "formatter.non_preferred_column")
        refuse_same(row, preferred, non_preferred)
        extra = others(row, {config.input_column, config.preferred_column, config.non_preferred_column})
        if asked.get(PARALLEL) is not None:
            extra[PARALLEL] = asked[PARALLEL]
        return Record(
            as_messages(asked.get("messages"), place.of("messages")),
            row.source,
            chosen=preferred,
            rejected=non_preferred,
            tools=as_tools(asked.get("tools"), place.of("tools")),
            extra=extra,
        )

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write prompt, tools and both answers."""
        config = self._config
        refuse_unheld(record, "openai_preference", HELD)
        if not (record.messages and record.chosen and record.rejected):
            raise cannot_hold(record, "openai_preference", "a record without a prompt and two answers")
        asked: dict[str, Any] = {"messages": write_messages(record.messages)}
        if record.tools is not None:
            asked["tools"] = json.loads(record.tools)
        if PARALLEL in record.extra:
            asked[PARALLEL] = record.extra[PARALLEL]
        row = {
            config.input_column: asked,
            config.preferred_column: write_messages(record.chosen),
            config.non_preferred_column: write_messages(record.rejected),
        }
        written = with_extra(row, record, "openai_preference", ())
        return {column: value for column, value in written.items() if column != PARALLEL}


def _answer(row: Row, column: str, option: str) -> tuple[Message, ...]:
    messages = as_messages(require(row, column, option), Place(row.source, column))
    if messages[0].role != "assistant":
        raise DataError(f"{row.source}: {column}[0] must be the assistant's; its role is '{messages[0].role}'")
    return messages
