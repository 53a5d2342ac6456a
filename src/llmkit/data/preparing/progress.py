"""How far work on many rows is: a bar on a terminal, a line now and then elsewhere, nothing where it is soon done."""

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from llmkit.formatting import format_number, format_seconds
from llmkit.terminal import stderr_console

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
QUIET_SECONDS = 2.0
"""Work that is done sooner shows nothing."""
LINE_SECONDS = 15.0
"""Time between two lines where there is no terminal."""


def with_progress(
    items: Iterable[T], total: int, what: str, clock: Callable[[], float] = time.monotonic
) -> Generator[T, None, None]:
    """The items; how many came is shown on standard error until the generator is closed.

    Args:
        items: what is counted.
        total: how many there will be.
        what: `Tokenizing rows`, say.
        clock: gives seconds.
    """
    if stderr_console().is_terminal:
        yield from _with_bar(items, total, what, clock)
    else:
        yield from _with_lines(items, total, what, clock)


def _with_bar(items: Iterable[T], total: int, what: str, clock: Callable[[], float]) -> Iterator[T]:
    started = clock()
    bar: Progress | None = None
    try:
        for count, item in enumerate(items, start=1):
            yield item
            if bar is None and clock() - started >= QUIET_SECONDS:
                bar = _bar(total, what)
                bar.start()
            if bar is not None:
                bar.update(bar.task_ids[0], completed=count)
    finally:
        if bar is not None:
            bar.stop()


def _with_lines(items: Iterable[T], total: int, what: str, clock: Callable[[], float]) -> Iterator[T]:
    started = clock()
    line_due = started + QUIET_SECONDS
    for count, item in enumerate(items, start=1):
        yield item
        now = clock()
        if now >= line_due and count < total:
            left = format_seconds((now - started) / count * (total - count))
            print(f"{what}: {format_number(count)} of {format_number(total)}, {left} left", file=sys.stderr, flush=True)
            line_due = now + LINE_SECONDS


def _bar(total: int, what: str) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn(what),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=stderr_console(),
        redirect_stdout=False,  # standard output belongs to `--json`
        refresh_per_second=4,
        transient=True,
    )
    bar.add_task(what, total=total)
    return bar
