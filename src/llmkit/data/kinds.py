"""What a foreign value is, in words."""

import math
from collections.abc import Mapping


def kind_of(value: object) -> str:
    """The type of a value of JSON, CSV or Arrow, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "text"
        case float() if math.isnan(value):
            return "NaN, a table's missing value"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case bytes():
            return "bytes"
    return type(value).__name__
