"""Values of rows as JSON can hold them."""

import math
from collections.abc import Mapping


def plain(value: object) -> object:
    """The same value made of what JSON knows: other types and numbers that are not finite become text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return str(value)
