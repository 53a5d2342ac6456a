"""A prompt and its completion, each as text or as messages."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.data.formatters.fields import (
    Place,
    as_messages,
    as_text,
    others,
    reference_answer,
    refuse_beyond_text,
    require,
    write_message,
)
from llmkit.data.turns import split_turns
from llmkit.errors import DataError
from llmkit.types import Message, Record, Role, Row


class Config(Section):
    """Text becomes a user message and an assistant message. A row without completion is a prompt to sample from."""

    prompt_column: str = "prompt"
    """Column with the prompt."""
    completion_column: str = "completion"
    """Column with the completion; reinforcement learning does not need it."""
    answer_column: str = "answer"
    """Column with the reference answer for rewards; rows need not have it."""


def build(config: Config) -> "PromptCompletion":
    """Make the formatter."""
    return PromptCompletion(config)


class PromptCompletion:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows with prompt and completion; a prompt by itself counts half."""
        return sum(map(self._fit, rows)) / max(len(rows), 1)

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns go to `extra`."""
        config = self._config
        refuse_beyond_text(row)
        prompt = require(row, config.prompt_column, "formatter.prompt_column")
        messages = _messages(prompt, "user", Place(row.source, config.prompt_column))
        used = {config.prompt_column}
        if row.values.get(config.completion_column) is not None:
            completion = row.values[config.completion_column]
            messages += _messages(completion, "assistant", Place(row.source, config.completion_column))
            used.add(config.completion_column)
        answer = reference_answer(row, config.answer_column)
        if answer is not None:
            used.add(config.answer_column)
        return Record(messages, row.source, answer=answer, extra=others(row, used))

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write the prompt and, when the record ends with the assistant, the completion."""
        if record.chosen or record.rejected:
            raise DataError(
                f"{record.source}: 'prompt_completion' cannot hold a preference pair; write it as 'preference'"
            )
        prompt, completion = split_turns(record.messages)
        if not prompt:
            raise DataError(f"{record.source}: 'prompt_completion' needs a prompt; this record begins with its answer")
        row = {self._config.prompt_column: _write(prompt, "user")}
        if completion:
            row[self._config.completion_column] = _write(completion, "assistant")
        if record.answer is not None:
            row[self._config.answer_column] = record.answer
        return {**row, **record.extra}

    def _fit(self, row: Row) -> float:
        values = row.values
        if not _holds(values.get(self._config.prompt_column)) or {"chosen", "rejected"} & values.keys():
            return 0.0
        return 1.0 if _holds(values.get(self._config.completion_column)) else 0.5


def _holds(value: Any) -> bool:
    return isinstance(value, str | list | tuple) and bool(value)


def _messages(value: Any, role: Role, place: Place) -> tuple[Message, ...]:
    if isinstance(value, list | tuple):
        return as_messages(value, place)
    return (Message(role, as_text(value, place)),)


def _write(messages: Sequence[Message], role: Role) -> str | list[dict[str, Any]]:
    """Plain text where that says it all."""
    if len(messages) == 1 and messages[0].role == role and messages[0].weight is None:
        return messages[0].text
    return [write_message(message) for message in messages]
