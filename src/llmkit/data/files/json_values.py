"""One JSON object as the values of a row."""

import json
from collections.abc import Sequence
from typing import Any

from llmkit.data.files.encoding import decode
from llmkit.data.files.spans import Span
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError


class _RepeatedKeyError(ValueError):
    """Python would keep the last of the values and drop the others silently."""


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return values


# NaN and Infinity are no JSON, but Python writes them; they pass as floats.
DECODER = json.JSONDecoder(object_pairs_hook=_without_repetition)


def parse_object(name: str, span: Span) -> dict[str, Any]:
    """The values of a row that is a JSON object.

    Args:
        name: the file, for messages.
    Raises:
        DataError: it is not UTF-8, not JSON, nested too deeply, not an object, or has a key twice.
    """
    text = decode(name, span.raw, span.offset, span.line)
    place = f"{name}:{span.line}"
    try:
        values = DECODER.decode(text)
    except json.JSONDecodeError as error:
        column = f"{name}:{span.line + error.lineno - 1}:{error.colno}"
        if not text.endswith("\n"):
            raise DataError(
                f"{column}: the last line ends within a row ({error.msg}); the file was cut off. Write it again or "
                "remove that line"
            ) from None
        raise DataError(f"{column}: not valid JSON: {error.msg}") from None
    except _RepeatedKeyError as error:
        raise DataError(f"{place}: the key '{error}' comes twice in one object; keep one of them") from None
    except RecursionError:
        raise DataError(f"{place}: JSON nested too deeply to be read") from None
    if not isinstance(values, dict):
        raise DataError(f"{place}: a row must be a JSON object, this is {kind_of(values)}")
    return values
