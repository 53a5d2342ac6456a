"""A chosen and a rejected answer to one prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.data.formatters.fields import (
    Place,
    as_message,
    as_messages,
    as_text,
    others,
    reference_answer,
    refuse_beyond_text,
    require,
    write_message,
)
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Message, Record, Row

PROMPT_COLUMNS = ("prompt", "messages", "conversations", "question", "instruction")
"""Where a prompt may be. `input` beside `instruction` is added to it on a new line."""


class Config(Section):
    """Prompt and answers are text or messages. Without a prompt, what both conversations begin with is the prompt."""

    prompt_column: str | None = None
    """Column with the prompt; unset looks for prompt, messages, conversations, question, then instruction."""
    chosen_column: str = "chosen"
    """Column with the preferred answer, or the whole conversation that ends in it."""
    rejected_column: str = "rejected"
    """Column with the other answer, in the same form."""
    answer_column: str = "answer"
    """Column with a reference answer; rows need not have it."""


def build(config: Config) -> "Preference":
    """Make the formatter."""
    return Preference(config)


class Preference:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows that have both answers."""
        columns = (self._config.chosen_column, self._config.rejected_column)
        return sum(all(row.values.get(column) for column in columns) for row in rows) / max(len(rows), 1)

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns go to `extra`."""
        config = self._config
        refuse_beyond_text(row)
        chosen = _answer(row, config.chosen_column, "formatter.chosen_column")
        rejected = _answer(row, config.rejected_column, "formatter.rejected_column")
        if chosen == rejected:
            raise DataError(f"{row.source}: '{config.chosen_column}' and '{config.rejected_column}' are the same")
        used = {config.chosen_column, config.rejected_column}
        column = self._prompt_column(row)
        if column is None:
            prompt = _shared_start(row, chosen, rejected)
        else:
            prompt, prompt_columns = _prompt(row, column)
            used |= prompt_columns
        answer = reference_answer(row, config.answer_column)
        if answer is not None:
            used.add(config.answer_column)
        return Record(
            prompt,
            row.source,
            chosen=_after(prompt, chosen, Place(row.source, config.chosen_column)),
            rejected=_after(prompt, rejected, Place(row.source, config.rejected_column)),
            answer=answer,
            extra=others(row, used),
        )

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write prompt and answers: as text where that says it all, else as messages."""
        if not (record.messages and record.chosen and record.rejected):
            raise DataError(f"{record.source}: 'preference' holds a prompt and two answers; write it as 'messages'")
        plain = _is_plain(record.messages, "user") and all(
            _is_plain(side, "assistant") for side in (record.chosen, record.rejected)
        )
        row = {
            self._config.prompt_column or "prompt": _write(record.messages, plain),
            self._config.chosen_column: _write(record.chosen, plain),
            self._config.rejected_column: _write(record.rejected, plain),
        }
        answer = {} if record.answer is None else {self._config.answer_column: record.answer}
        return {**row, **answer, **record.extra}

    def _prompt_column(self, row: Row) -> str | None:
        """The column with the prompt; None when the answers are whole conversations."""
        if self._config.prompt_column is not None:
            require(row, self._config.prompt_column, "formatter.prompt_column")
            return self._config.prompt_column
        found = [column for column in PROMPT_COLUMNS if row.values.get(column)]
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
    if isinstance(value, list | tuple):
        return as_messages(value, place)
    if isinstance(value, Mapping):
        return (as_message(value, place),)
    if isinstance(value, str):
        return (Message("assistant", value),)
    raise DataError(f"{place} must be text or messages, this is {kind_of(value)}")


def _prompt(row: Row, column: str) -> tuple[tuple[Message, ...], set[str]]:
    """The prompt and the columns it was made of."""
    value = row.values[column]
    place = Place(row.source, column)
    if isinstance(value, list | tuple):
        prompt, used = as_messages(value, place), {column}
    else:
        text, used = as_text(value, place), {column}
        if column == "instruction" and isinstance(row.values.get("input"), str):
            text = f"{text}\n{row.values['input']}" if row.values["input"] else text
            used.add("input")
        prompt = (Message("user", text),)
    if isinstance(row.values.get("system"), str):
        used.add("system")
        if row.values["system"]:
            prompt = (Message("system", row.values["system"]), *prompt)
    return prompt, used


def _shared_start(row: Row, chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[Message, ...]:
    """The messages that both conversations begin with."""
    length = 0
    while length < min(len(chosen), len(rejected)) and chosen[length] == rejected[length]:
        length += 1
    if not length:
        raise DataError(
            f"{row.source}: no prompt: found {', '.join(row.values)}, and the two answers do not begin with the same "
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


def _is_plain(messages: Sequence[Message], role: str) -> bool:
    return len(messages) == 1 and messages[0].role == role and messages[0].weight is None


def _write(messages: Sequence[Message], plain: bool) -> str | list[dict[str, Any]]:
    return messages[0].text if plain else [write_message(message) for message in messages]
