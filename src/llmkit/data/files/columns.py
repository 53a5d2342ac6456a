"""Other names for the columns of a row."""

from collections.abc import Mapping
from difflib import get_close_matches

from llmkit.errors import DataError
from llmkit.types import Row


def rename(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with columns renamed; all others stay.

    Args:
        columns: new name -> the name that the row has.
    Raises:
        DataError: the row lacks a column, or has another one of the new name.
    """
    if not columns:
        return row
    renamed = set(columns.values())
    for new, old in columns.items():
        if old not in row.values:
            close = get_close_matches(old, row.values, 1)
            hint = f". Did you mean '{close[0]}'?" if close else ""
            raise DataError(
                f"{row.source}: no column '{old}', which dataset.columns.{new} names; found "
                f"{', '.join(row.values)}{hint}"
            )
        if new in row.values and new not in renamed:
            raise DataError(
                f"{row.source}: dataset.columns.{new}={old}: there is a column '{new}' already; give that one another "
                "name too"
            )
    kept = {name: value for name, value in row.values.items() if name not in renamed}
    return Row({**kept, **{new: row.values[old] for new, old in columns.items()}}, row.source)
