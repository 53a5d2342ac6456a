"""What people are told on standard error: notes, warnings, and the one console for rich output."""

import re
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a model may sample and a terminal must not get: characters that clear a screen or cannot be printed."""


def note(message: str) -> None:
    """Tell what is going on."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Tell what the user should look at, though the run goes on."""
    start, end = ("\x1b[33m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{start}warning:{end} {message}", file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """`text` with control characters, other than tab and newline, and lone surrogates spelled out."""
    return UNSAFE.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


@cache
def stderr_console() -> "Console":
    """Rich on standard error, plain when that is not a terminal.

    Everyone shares this one: only a console that knows of a progress bar can print above it.
    """
    from rich.console import Console

    return Console(stderr=True, highlight=False)
