"""The one place from which rich output goes to standard error."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def stderr_console() -> "Console":
    """Rich on standard error, plain when that is not a terminal.

    Everyone shares this one: only a console that knows of a progress bar can print above it.
    """
    from rich.console import Console

    return Console(stderr=True, highlight=False)
