"""ShareGPT: `conversations: [{from, value}]` or `conversation: [{human, assistant}]`, with tools and media."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.data.formatters.columns import Place, given, label_of, missing, optional_text, require
from llmkit.data.formatters.conversation import text_or_messages
from llmkit.data.formatters.holding import Feature, cannot_hold, refuse_unheld, with_extra
from llmkit.data.formatters.media import take_media
from llmkit.data.formatters.rows import MEDIA_COLUMNS, SharedColumns, make_record, reserved, share, shared_row
from llmkit.data.formatters.sharegpt_turns import as_turns, is_pair, is_turn, write_turn
from llmkit.data.formatters.turn_forms import form_with
from llmkit.errors import DataError
from llmkit.types import Message, Record, Role, Row

COLUMNS = ("conversations", "conversation", "messages")
"""Where a conversation may be."""
TAGS: Mapping[str, Role] = {
    "system_tag": "system",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
}
HELD: frozenset[Feature] = frozenset(
    {
        "a preference pair",
        "tool schemas",
        "a label",
        "a reference answer",
        "loss weights",
        "tool calls",
        "ids of tool calls",
        "names of speakers",
        "media",
    }
)


class Config(SharedColumns):
    """Who speaks is told by tags; the usual spellings (`gpt`, `assistant`, `bot`, ...) are known beside those that are
    set. The same side may speak twice in a row. A system turn comes first, and only one of it."""

    conversations_column: str | None = None
    """Column with the turns; unset looks for conversations, conversation, then messages."""
    role_key: str = "from"
    """Key of a turn that says who speaks."""
    content_key: str = "value"
    """Key of a turn with what is said."""
    user_tag: str = "human"
    """Tag of the user's turns."""
    assistant_tag: str = "gpt"
    """Tag of the assistant's turns."""
    function_tag: str = "function_call"
    """Tag of turns in which the assistant calls tools, written as JSON."""
    observation_tag: str = "observation"
    """Tag of what a tool answers."""
    system_tag: str = "system"
    """Tag of a system prompt among the turns."""
    system_column: str | None = "system"
    """Column with the system prompt; rows need not have it."""
    chosen_column: str | None = "chosen"
    """Column with the preferred answer, one turn; rows need not have it."""
    rejected_column: str | None = "rejected"
    """Column with the other answer."""
    label_column: str | None = "label"
    """Column that says whether the answer at the end is a good one; rows need not have it."""


def build(config: Config) -> "ShareGPT":
    """Make the formatter."""
    return ShareGPT(config)


class ShareGPT:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config
        tags: dict[str, Role] = {getattr(config, option): role for option, role in TAGS.items()}
        self._form = form_with(config.role_key, config.content_key, tags, config.function_tag)

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows with a list of turns in one of the dialects."""
        return share(rows, self._fits)

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns go to `extra`."""
        config = self._config
        column = config.conversations_column or next((name for name in COLUMNS if name in row.values), None)
        if column is None:
            raise missing(row, COLUMNS[0], "formatter.conversations_column")
        value = require(row, column, "formatter.conversations_column")
        turns = as_turns(value, Place(row.source, column), self._form)
        chosen, rejected = self._pair(row)
        return make_record(
            row,
            config,
            {column, config.system_column, config.chosen_column, config.rejected_column, config.label_column},
            self._with_system(row, column, turns),
            chosen=chosen,
            rejected=rejected,
            label=label_of(row, config.label_column),
        )

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write the conversation as `{from, value}`."""
        config = self._config
        refuse_unheld(record, "sharegpt", HELD)
        messages, urls = take_media(record, "sharegpt")
        if not messages or any(message.role == "system" for message in messages[1:]):
            what = "a system message after the first message" if messages else "a conversation without messages"
            raise cannot_hold(record, "sharegpt", what)
        row: dict[str, Any] = {config.conversations_column or COLUMNS[0]: self._written(messages, record)}
        for medium, option in MEDIA_COLUMNS.items():
            if medium in urls:
                row[getattr(config, option) or f"{medium}s"] = urls[medium]
        if record.chosen or record.rejected:
            for column, side in ((config.chosen_column, record.chosen), (config.rejected_column, record.rejected)):
                if len(side) != 1 or not isinstance(side[0].content, str) or column is None:
                    raise cannot_hold(record, "sharegpt", "answers of several messages or with media")
                (row[column],) = self._written(side, record)
        if record.label is not None:
            row[config.label_column or "label"] = record.label
        row |= shared_row(record, config, record.tools)
        return with_extra(row, record, "sharegpt", reserved(record, config))

    def _fits(self, row: Row) -> bool:
        config = self._config
        columns = COLUMNS if config.conversations_column is None else (config.conversations_column,)
        return any(self._is_conversation(row.values.get(column)) for column in columns)

    def _is_conversation(self, value: Any) -> bool:
        if isinstance(value, str):
            return value.lstrip().startswith("[") and all(
                f'"{key}"' in value or f"'{key}'" in value for key in (self._form.role_key, self._form.content_key)
            )
        first = value[0] if isinstance(value, list | tuple) and value else None
        return is_turn(first, self._form) or is_pair(first, self._form)

    def _with_system(self, row: Row, column: str, turns: tuple[Message, ...]) -> tuple[Message, ...]:
        """The turns after the system prompt, which is in a column or the first turn."""
        system = optional_text(row, self._config.system_column)
        if system is not None:
            turns = (Message("system", system), *turns)
        late = [index for index, message in enumerate(turns) if message.role == "system" and index]
        if late and system is not None:
            raise DataError(
                f"{row.source}: {column}[{late[0] - 1}] is a system prompt, and '{self._config.system_column}' is one "
                "too; keep one of them, or leave the column out with --set formatter.system_column=null"
            )
        if late:
            raise DataError(
                f"{row.source}: {column}[{late[0]}] is a system prompt; ShareGPT has one, as the first turn. Rows with "
                "system messages anywhere are read by --set formatter.name=messages"
            )
        return turns

    def _pair(self, row: Row) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        config = self._config
        columns = (config.chosen_column, config.rejected_column)
        if all(given(row, column) is None for column in columns):
            return (), ()
        chosen, rejected = (
            self._side(row, column or option.removesuffix("_column"), f"formatter.{option}")
            for column, option in zip(columns, ("chosen_column", "rejected_column"), strict=True)
        )
        return chosen, rejected

    def _side(self, row: Row, column: str, option: str) -> tuple[Message, ...]:
        value = require(row, column, option)
        place = Place(row.source, column)
        if isinstance(value, Mapping):
            value = [value]
        side = (
            text_or_messages(value, "assistant", place)
            if isinstance(value, str)
            else as_turns(value, place, self._form)
        )
        if side[0].role != "assistant":
            raise DataError(f"{place} must be the assistant's answer; its role is '{side[0].role}'")
        return side

    def _written(self, messages: Sequence[Message], record: Record) -> list[dict[str, Any]]:
        config = self._config
        tags = {role: getattr(config, option) for option, role in TAGS.items()} | {"calls": config.function_tag}
        return [write_turn(message, tags, self._form, record) for message in messages]
