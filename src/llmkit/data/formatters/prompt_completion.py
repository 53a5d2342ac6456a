"""A prompt and its completion, each as text or as messages."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.data.formatters.columns import Place, given, is_label, require
from llmkit.data.formatters.conversation import text_or_messages, write_text_or_messages
from llmkit.data.formatters.detection import SURE_COMPLETIONS
from llmkit.data.formatters.holding import cannot_hold, messages_and, refuse_unheld, with_extra
from llmkit.data.formatters.rows import SharedColumns, make_record, reserved, share, shared_row
from llmkit.data.turns import split_turns
from llmkit.types import Record, Row

HELD = messages_and("tool schemas", "a reference answer")


class Config(SharedColumns):
    """Text becomes a user message and an assistant message. A row without completion is a prompt to sample from."""

    prompt_column: str = "prompt"
    """Column with the prompt."""
    completion_column: str = "completion"
    """Column with the completion; reinforcement learning does not need it."""


def build(config: Config) -> "PromptCompletion":
    """Make the formatter."""
    return PromptCompletion(config)


class PromptCompletion:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows with prompt and completion; a prompt by itself counts half."""
        return share(rows, self._fit)

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns go to `extra`."""
        config = self._config
        prompt = require(row, config.prompt_column, "formatter.prompt_column")
        messages = text_or_messages(prompt, "user", Place(row.source, config.prompt_column))
        completion = given(row, config.completion_column)
        if completion is not None:
            messages += text_or_messages(completion, "assistant", Place(row.source, config.completion_column))
        return make_record(row, config, {config.prompt_column, config.completion_column}, messages)

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write the prompt and, when the record ends with the assistant, the completion."""
        config = self._config
        refuse_unheld(record, "prompt_completion", HELD)
        prompt, completion = split_turns(record.messages)
        if not prompt:
            raise cannot_hold(record, "prompt_completion", "a conversation that begins with its answer")
        row: dict[str, Any] = {config.prompt_column: write_text_or_messages(prompt, "user")}
        if completion:
            row[config.completion_column] = write_text_or_messages(completion, "assistant")
        row |= shared_row(record, config, json.loads(record.tools or "null"))
        return with_extra(row, record, "prompt_completion", reserved(record, config))

    def _fit(self, row: Row) -> float:
        values = row.values
        if not _holds(values.get(self._config.prompt_column)) or {"chosen", "rejected"} & values.keys():
            return 0.0
        if _holds(values.get(self._config.completion_column)):
            # With a label of good or bad it is a row of KTO.
            return 0.5 if is_label(values.get("label")) else 1.0
        # A prompt beside an answer of another name would lose it.
        return 0.0 if any(values.get(column) for column in SURE_COMPLETIONS) else 0.5


def _holds(value: Any) -> bool:
    return isinstance(value, str | list | tuple) and bool(value)
