"""Rows that were tokenized before: `{input_ids}` with `labels`, `loss_mask` or `loss_weights`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.section import Section
from llmkit.data.formatters.cells import from_cell
from llmkit.data.formatters.columns import Place, given, others, require
from llmkit.data.formatters.holding import cannot_hold, refuse_unheld, with_extra
from llmkit.data.formatters.rows import share
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Record, Row, Sample

MASKED = -100
"""The label of a token that is not trained."""


class Config(Section):
    """Without labels, mask or weights every token is trained. Nothing is added to the tokens, and none is taken away
    but those that an attention mask marks as padding."""

    token_ids_column: str = "input_ids"
    """Column with the token ids."""
    labels_column: str | None = "labels"
    """Column with a label for each token: its own id, or -100 when it is not trained."""
    mask_column: str | None = "loss_mask"
    """Column with 1 for each token that is trained and 0 for the others."""
    weights_column: str | None = "loss_weights"
    """Column with a loss weight for each token."""
    attention_column: str | None = "attention_mask"
    """Column with 0 for padding at the start or the end, which is taken off, and 1 for all other tokens."""


def build(config: Config) -> "Tokens":
    """Make the formatter."""
    return Tokens(config)


class Tokens:
    """The formatter."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def score(self, rows: Sequence[Row]) -> float:
        """Share of rows with a list of whole numbers as token ids."""
        return share(rows, self._fits)

    def to_record(self, row: Row) -> Record:
        """Read one row; other columns go to `extra`."""
        config = self._config
        column = config.token_ids_column
        require(row, column, "formatter.token_ids_column")
        token_ids = _numbers(row, column)
        if not token_ids:
            raise DataError(f"{row.source}: '{column}' is an empty list; a row needs a token")
        for index, token_id in enumerate(token_ids):
            if not isinstance(token_id, int) or token_id < 0:
                raise DataError(f"{row.source}: {column}[{index}] is {token_id}; a token id is a whole number from 0")
        weights = self._weights(row, token_ids)
        start, end = self._without_padding(row, len(token_ids))
        sample = Sample(token_ids[start:end], weights[start:end], row.source)
        used = {column, config.labels_column, config.mask_column, config.weights_column, config.attention_column}
        return Record((), row.source, tokens=sample, extra=others(row, used))

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write token ids, and loss weights where not every token has 1."""
        config = self._config
        refuse_unheld(record, "tokens", ("token ids",))
        if record.tokens is None:
            raise cannot_hold(record, "tokens", "a record that is not tokenized")
        row: dict[str, Any] = {config.token_ids_column: list(record.tokens.token_ids)}
        if any(weight != 1 for weight in record.tokens.loss_weights):
            row[config.weights_column or "loss_weights"] = list(record.tokens.loss_weights)
        columns = (config.labels_column, config.mask_column, config.weights_column, config.attention_column)
        return with_extra(row, record, "tokens", columns)

    def _fits(self, row: Row) -> bool:
        value = row.values.get(self._config.token_ids_column)
        if isinstance(value, str):
            return value.lstrip().startswith("[")
        return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], int)

    def _weights(self, row: Row, token_ids: Sequence[int]) -> list[float]:
        config = self._config
        columns = (config.labels_column, config.mask_column, config.weights_column)
        found = [column for column in columns if column is not None and given(row, column) is not None]
        if not found:
            return [1.0] * len(token_ids)
        if len(found) > 1:
            raise DataError(
                f"{row.source}: {' and '.join(found)} each say what is trained; keep one of them, or leave one to "
                "rewards with --set formatter.labels_column=null (mask_column, weights_column)"
            )
        values = _numbers(row, found[0], len(token_ids))
        if found[0] == config.labels_column:
            return [
                _of_label(row, found[0], index, *pair) for index, pair in enumerate(zip(values, token_ids, strict=True))
            ]
        for index, value in enumerate(values):
            allowed = value in (0, 1) if found[0] == config.mask_column else math.isfinite(value) and value >= 0
            if not allowed:
                what = "0 or 1" if found[0] == config.mask_column else "a number from 0"
                raise DataError(f"{row.source}: {found[0]}[{index}] is {value}; it must be {what}")
        return [float(value) for value in values]

    def _without_padding(self, row: Row, length: int) -> tuple[int, int]:
        """The range of tokens that are not padding."""
        column = self._config.attention_column
        if column is None or given(row, column) is None:
            return 0, length
        mask = [bool(value) for value in _numbers(row, column, length)]
        if True not in mask:
            raise DataError(f"{row.source}: '{column}' says that every token is padding")
        start, end = mask.index(True), length - mask[::-1].index(True)
        if not all(mask[start:end]):
            raise DataError(
                f"{row.source}: {column}[{mask.index(False, start)}] is 0 between other tokens; only padding at the "
                "start or the end can be taken off"
            )
        return start, end


def _numbers(row: Row, column: str, length: int | None = None) -> list[Any]:
    """A list of numbers, `length` of them."""
    place = Place(row.source, column)
    values = from_cell(row.values[column], place, "a list of numbers")
    if not isinstance(values, list | tuple):
        raise DataError(f"{place} must be a list of numbers, this is {kind_of(values)}")
    wrong = next((index for index, value in enumerate(values) if not isinstance(value, int | float)), None)
    if wrong is not None:
        raise DataError(f"{place.at(wrong)} must be a number, this is {kind_of(values[wrong])}")
    if length is not None and len(values) != length:
        raise DataError(f"{place} has {len(values)} values, but there are {length} tokens")
    return list(values)


def _of_label(row: Row, column: str, index: int, label: Any, token_id: int) -> float:
    if label == MASKED:
        return 0.0
    if label == token_id:
        return 1.0
    raise DataError(
        f"{row.source}: {column}[{index}] is {label}, but the token there is {token_id}; a label is its own token or "
        f"{MASKED}. Labels that are shifted by one must be shifted back"
    )
