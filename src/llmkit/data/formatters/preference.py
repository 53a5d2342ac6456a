"""A chosen and a rejected answer to one prompt."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.data.formatters.columns import Place, columns_of, given, optional_text, require
from llmkit.data.formatters.conversation import is_plain, text_or_messages, write_messages
from llmkit.data.formatters.holding import messages_and, refuse_unheld, with_extra
from llmkit.data.formatters.rows import SharedColumns, make_record, refuse_same, reserved, share, shared_row
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Message, Record, Row

PROMPT_COLUMNS = ("prompt", "messages", "conversations", "question", "instruction")
"""Where a prompt may be. `input` beside `instruction` is added to it on a new line."""
OTHER_FORMATS = ("conversations", "instruction")
"""Columns of the prompt in formats that have preference forms of their own."""
HELD = messages_and("a preference pair", "tool schemas", "a reference answer")


class Config(SharedColumns):
    """Prompt and answers are text or messages. Without a prompt, what both conversations begin with is the prompt."""

    prompt_column: str | None = None
    """Column with the prompt; unset looks for prompt, messages, conversations, question, then instruction."""
    chosen_column: str = "chosen"
    """Column with the preferred answer, or the whole conversation that ends in it."""
    rejected_column: str = "rejected"
    """Column with the other answer, in the same form."""
    system_column: str | None = "system"
    """Column with a system prompt; rows need not have it."""


def build(config: Config) -> "Preference":
    """Make the formatter."""
    return Preference(config)


class Preference:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows that have both answers; a prompt as Alpaca and ShareGPT have it counts half."""
        return share(rows, self._fit)

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns go to `extra`."""
        config = self._config
        chosen = _answer(row, config.chosen_column, "formatter.chosen_column")
        rejected = _answer(row, config.rejected_column, "formatter.rejected_column")
        refuse_same(row, chosen, rejected)
        used: set[str | None] = {config.chosen_column, config.rejected_column, config.system_column}
        column = self._prompt_column(row, is_answer=chosen[0].role == "assistant")
        if column is None:
            prompt = _shared_start(row, chosen, rejected)
        else:
            prompt, prompt_columns = _prompt(row, column)
            used |= prompt_columns
        system = optional_text(row, config.system_column)
        asked = prompt if system is None else (Message("system", system), *prompt)
        if system is not None and any(message.role == "system" for message in prompt):
            raise DataError(
                f"{row.source}: '{config.system_column}' and the prompt both hold a system message; keep one of them"
            )
        chosen = _after(prompt, chosen, Place(row.source, config.chosen_column))
        rejected = _after(prompt, rejected, Place(row.source, config.rejected_column))
        return make_record(row, config, used, asked, chosen=chosen, rejected=rejected)

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write prompt and answers: as text where that says it all, else as messages."""
        config = self._config
        refuse_unheld(record, "preference", HELD)
        if not (record.messages and record.chosen and record.rejected):
            raise DataError(f"{record.source}: 'preference' holds a prompt and two answers; write it as 'messages'")
        plain = is_plain(record.messages, "user") and all(
            is_plain(side, "assistant") for side in (record.chosen, record.rejected)
        )
        row: dict[str, Any] = {
            config.prompt_column or "prompt": _write(record.messages, plain),
            config.chosen_column: _write(record.chosen, plain),
            config.rejected_column: _write(record.rejected, plain),
        }
        row |= shared_row(record, config, json.loads(record.tools or "null"))
        return with_extra(row, record, "preference", reserved(record, config))

    def _fit(self, row: Row) -> float:
        columns = (self._config.chosen_column, self._config.rejected_column)
        if not all(row.values.get(column) for column in columns):
            return 0.0
        return 0.5 if any(row.values.get(column) for column in OTHER_FORMATS) else 1.0

    def _prompt_column(self, row: Row, *, is_answer: bool) -> str | None:
        """The column with the prompt; None when the answers are whole conversations, not answers alone."""
        if self._config.prompt_column is not None:
            require(row, self._config.prompt_column, "formatter.prompt_column")
            return self._config.prompt_column
        named = [column for column in PROMPT_COLUMNS if given(row, column) is not None]
        found = [column for column in named if row.values[column]] or (named[:1] if is_answer else [])
        if len(found) > 1:
            raise DataError(
                f"{row.source}: {' and '.join(found)} could each be the prompt; choose one with "
                f"--set formatter.prompt_column={found[0]}"
            )
        return found[0] if found else None


def _answer(row: Row, column: str, option: str) -> tuple[Message, ...]:
    """One side: text, one message, or a list of messages."""
    value = require(row, column, option)
    place = Place(row.source, column)
    if not isinstance(value, str | list | tuple | Mapping):
        # Two numbers are ratings of two models more often than answers.
        raise DataError(f"{place} must be text or messages, this is {kind_of(value)}")
    return text_or_messages(value, "assistant", place)


def _prompt(row: Row, column: str) -> tuple[tuple[Message, ...], set[str]]:
    """The prompt and the columns it was made of."""
    value = given(row, column)
    place = Place(row.source, column)
    prompt, used = text_or_messages(value, "user", place), {column}
    if column == "instruction":
        used.add("input")
        context = optional_text(row, "input")
        if context and is_plain(prompt, "user"):
            prompt = (Message("user", f"{prompt[0].text}\n{context}"),)
    return prompt, used


def _shared_start(row: Row, chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[Message, ...]:
    """The messages that both conversations begin with."""
    length = 0
    while length < min(len(chosen), len(rejected)) and chosen[length] == rejected[length]:
        length += 1
    if not length:
        raise DataError(
            f"{row.source}: no prompt: found {columns_of(row)}, and the two answers do not begin with the same "
            "message. Name the prompt's column with --set formatter.prompt_column=..."
        )
    return tuple(chosen[:length])


def _after(prompt: tuple[Message, ...], side: tuple[Message, ...], place: Place) -> tuple[Message, ...]:
    """What comes after the prompt, when the side repeats the prompt."""
    if side[0].role != "assistant" and side[: len(prompt)] == prompt:
        side = side[len(prompt) :]
    if not side:
        raise DataError(f"{place} has no answer of its own after the prompt")
    if side[0].role != "assistant":
        raise DataError(f"{place} must begin with the assistant's answer or repeat the prompt; it has '{side[0].role}'")
    return side


def _write(messages: Sequence[Message], plain: bool) -> str | list[dict[str, Any]]:
    return messages[0].text if plain else write_messages(messages)
