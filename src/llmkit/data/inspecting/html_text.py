"""Text as HTML."""

import re
from html import escape

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def text(value: object) -> str:
    """Text as HTML, with what HTML cannot hold replaced; good for attributes as well."""
    return escape(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True)
