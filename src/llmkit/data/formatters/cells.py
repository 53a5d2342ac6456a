"""Lists and objects that are written as text in one cell, as tables of text hold them."""

import ast
import json
from typing import Any

from llmkit.data.formatters.columns import Place
from llmkit.errors import DataError


def from_cell(value: Any, place: Place, what: str) -> Any:
    """The value that a cell's text writes, as JSON or as Python shows it; a value that is not text, as it is.

    Args:
        value: of a column.
        place: where it is.
        what: what must be there (`a list of messages`), for the message.
    Raises:
        DataError: the text is neither.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except RecursionError:
        raise DataError(f"{place} is JSON nested too deeply to be read") from None
    except json.JSONDecodeError as error:
        # pandas writes a list into a cell as Python shows it: [['question', 'answer']].
        if value.lstrip().startswith(("[", "{")):
            literal = _python_literal(value)
            if literal is not None:
                return literal
        raise DataError(
            f"{place} must be {what}, this is text (not valid JSON at character {error.pos + 1}: {error.msg})"
        ) from None


def is_written_list(value: Any) -> bool:
    """Whether a cell's text looks like a list."""
    return isinstance(value, str) and value.lstrip().startswith("[")


def _python_literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
