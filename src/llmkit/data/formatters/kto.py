"""A prompt, a completion and whether it is a good one: `{prompt, completion, label}` for KTO."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.data.formatters.columns import Place, is_label, label_of, require
from llmkit.data.formatters.conversation import text_or_messages, write_text_or_messages
from llmkit.data.formatters.holding import cannot_hold, messages_and, refuse_unheld, with_extra
from llmkit.data.formatters.rows import SharedColumns, make_record, reserved, share, shared_row
from llmkit.data.turns import split_turns
from llmkit.errors import DataError
from llmkit.types import Record, Row

HELD = messages_and("tool schemas", "a reference answer", "a label")


class Config(SharedColumns):
    """Prompt and completion are text or messages; conversations with a label beside them are read by `messages`."""

    prompt_column: str = "prompt"
    """Column with the prompt."""
    completion_column: str = "completion"
    """Column with the completion."""
    label_column: str = "label"
    """Column that says whether the completion is a good one: true, false, 1 or 0."""


def build(config: Config) -> "KTO":
    """Make the formatter."""
    return KTO(config)


class KTO:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows with prompt, completion and a label of good or bad."""
        return share(rows, self._fits)

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns go to `extra`."""
        config = self._config
        prompt = require(row, config.prompt_column, "formatter.prompt_column")
        completion = require(row, config.completion_column, "formatter.completion_column")
        require(row, config.label_column, "formatter.label_column")
        label = label_of(row, config.label_column)
        if label is None:
            raise DataError(f"{row.source}: '{config.label_column}' is empty; it must be true, false, 1 or 0")
        messages = text_or_messages(prompt, "user", Place(row.source, config.prompt_column))
        answer = text_or_messages(completion, "assistant", Place(row.source, config.completion_column))
        if answer[-1].role != "assistant":
            place = Place(row.source, config.completion_column)
            raise DataError(f"{place} must end with the assistant; it ends with '{answer[-1].role}'")
        used = {config.prompt_column, config.completion_column, config.label_column}
        return make_record(row, config, used, (*messages, *answer), label=label)

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write prompt, completion and label."""
        config = self._config
        refuse_unheld(record, "kto", HELD)
        prompt, completion = split_turns(record.messages)
        if record.label is None or not prompt or not completion:
            what = "a record without label" if record.label is None else "a record without prompt or without answer"
            raise cannot_hold(record, "kto", what)
        row: dict[str, Any] = {
            config.prompt_column: write_text_or_messages(prompt, "user"),
            config.completion_column: write_text_or_messages(completion, "assistant"),
            config.label_column: record.label,
        }
        row |= shared_row(record, config, json.loads(record.tools or "null"))
        return with_extra(row, record, "kto", reserved(record, config))

    def _fits(self, row: Row) -> bool:
        config = self._config
        texts = (row.values.get(config.prompt_column), row.values.get(config.completion_column))
        return all(isinstance(text, str | list | tuple) for text in texts) and is_label(
            row.values.get(config.label_column)
        )
