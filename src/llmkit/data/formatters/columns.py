"""Read the columns of a row."""

import math
import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any, NamedTuple

from llmkit.data.formatters.detection import looks_like
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Row, Source

NAN_WORDS = ("nan", "NaN")
"""How pandas writes a missing value into a cell of text."""
TEXT_TABLE = re.compile(r"\.(csv|tsv)(\.\w+)?$", re.IGNORECASE)
YES = ("true", "1", "1.0")
NO = ("false", "0", "0.0")


class Place(NamedTuple):
    """Where in a row a value is: `train.jsonl:17: messages[2]`."""

    source: Source
    name: str

    def __str__(self) -> str:
        return f"{self.source}: {self.name}"

    def at(self, index: int) -> "Place":
        """An item of the list that is here."""
        return Place(self.source, f"{self.name}[{index}]")

    def of(self, key: str) -> "Place":
        """A value of the object that is here."""
        return Place(self.source, f"{self.name}.{key}")


def given(row: Row, column: str | None) -> Any:
    """The value of a column; None when the row has no such column, or null or NaN in it.

    Args:
        row: the row.
        column: the column to read; None reads nothing.
    Raises:
        DataError: a .csv or .tsv cell says `nan`, which would be trained as a word.
    """
    if column is None:
        return None
    value = row.values.get(column)
    if isinstance(value, float) and math.isnan(value):
        return None
    if value in NAN_WORDS and isinstance(value, str) and TEXT_TABLE.search(row.source.path):
        raise DataError(
            f"{row.source}: '{column}' is '{value}', which is how a missing value gets into a table of text; leave the "
            "cell empty or remove the row (a row that means the word can be written as JSON Lines)"
        )
    return value


def require(row: Row, column: str, option: str) -> Any:
    """The value of a column that a row must have.

    Args:
        row: the row.
        column: the column to read.
        option: the setting that names another column, for the message.
    Raises:
        DataError: the row has no such column, or null or NaN in it.
    """
    value = given(row, column)
    if value is not None:
        return value
    if column in row.values:
        raise DataError(f"{row.source}: '{column}' is {kind_of(row.values[column])}")
    raise missing(row, column, option)


def missing(row: Row, column: str, option: str) -> DataError:
    """The error for a row without a column: what it has, and which column or format may have been meant."""
    close = get_close_matches(column, row.values, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    other = looks_like(row)
    if other is not None:
        hint = f" The row looks like the format '{other}': --set formatter.name={other}, if all rows are like it."
    return DataError(
        f"{row.source}: no '{column}'; found {columns_of(row)}.{hint} Name the column with --set {option}=..., "
        "or choose another formatter with --set formatter.name=..."
    )


def columns_of(row: Row) -> str:
    """The row's columns, for messages."""
    return ", ".join(row.values) or "no columns"


def as_text(value: Any, place: Place) -> str:
    """Text, or a number as it is written.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    raise DataError(f"{place} must be text, this is {kind_of(value)}")


def optional_text(row: Row, column: str | None) -> str | None:
    """The text of a column; None when there is none, or it is empty.

    Raises:
        DataError: it is not text.
    """
    value = given(row, column)
    return None if value is None else as_text(value, Place(row.source, str(column))) or None


def reference_answer(row: Row, column: str | None) -> str | None:
    """The reference answer that rewards compare with; None when there is no such column, or it holds no text."""
    value = given(row, column)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def label_of(row: Row, column: str | None) -> bool | None:
    """Whether the answer is a good one; None when the row does not say.

    Raises:
        DataError: it is neither a boolean nor one of the words and numbers for it.
    """
    value = given(row, column)
    if value is None or value == "":
        return None
    word = str(value).strip().lower()
    if word in YES or word in NO:
        return word in YES
    raise DataError(
        f"{row.source}: {column} is {_shown(value)}; the label of a good or bad answer is true, false, 1 or 0. If it "
        "means something else, leave it to rewards with --set formatter.label_column=null, or rename the column"
    )


def is_label(value: Any) -> bool:
    """Whether a value says good or bad."""
    return isinstance(value, bool | int | float | str) and str(value).strip().lower() in (*YES, *NO)


def others(row: Row, used: Collection[str | None]) -> dict[str, Any]:
    """The columns that a formatter does not use itself."""
    return {column: value for column, value in row.values.items() if column not in used}


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float) else kind_of(value)
