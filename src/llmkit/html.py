"""Pages in one file that load nothing from anywhere."""

import re
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def text(value: object) -> str:
    """Text as HTML, with what HTML cannot hold replaced; good for attributes as well."""
    return escape(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True)


def document(title: str, body: str, *, style: str, script: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML.
        style: CSS.
        script: JavaScript that runs when the body is there.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{style}</style></head>"
        f"<body>{body}<script>{script}</script></body></html>\n"
    )
