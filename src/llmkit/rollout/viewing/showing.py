"""From files of rollouts to what is seen of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from llmkit.errors import DataError
from llmkit.rollout.lines import encode, rollout_files
from llmkit.rollout.summary import summarize
from llmkit.rollout.telling import print_summary
from llmkit.rollout.viewing.finding import Found, Order, Wanted, find
from llmkit.rollout.viewing.tokens import find_codec, tokens_of
from llmkit.terminal import note, warn

HTML_ROLLOUTS = 200
"""Of a page, when nobody says how many."""


@dataclass(frozen=True)
class Request:
    """How rollouts are to be shown.

    Attributes:
        limit: rollouts of a page; None takes what suits.
        prompts: as the model saw them.
        html: file to write; None prints.
        model: whose tokenizer to take; None is the run's.
        as_json: print lines as they are.
    """

    order: Order
    limit: int | None = None
    page: int = 1
    prompts: bool = False
    html: Path | None = None
    model: str | None = None
    as_json: bool = False


def show(paths: Sequence[Path], wanted: Wanted, request: Request) -> None:
    """Print rollouts, or write a page of them.

    Raises:
        DataError: there are none, or a file cannot be read.
    """
    files = rollout_files(paths)
    found = find(files, wanted, request.order)
    if found.num_damaged:
        warn(f"{found.num_damaged:,} lines are no whole rollouts")
    if not found.num_rollouts:
        raise DataError(f"{', '.join(map(str, files))}: no rollouts in it")
    limit = request.limit or (HTML_ROLLOUTS if request.html is not None else 10)
    start = (request.page - 1) * limit
    lines = [spot.read() for spot in found.spots[start : start + limit]]
    if request.as_json:
        for line in lines:
            typer.echo(encode(line), nl=False)
        return
    codec = find_codec(files[0], request.model) if any("completion_ids" in line for line in lines) else None
    shown = [(line, tokens_of(line, codec)) for line in lines]
    told = describe(found, start, len(lines))
    if request.html is not None:
        from llmkit.rollout.viewing.page import write_page

        title = f"llmkit rollouts · {files[0].absolute().parent.name}"
        write_page(request.html, title, shown, summarize(files).to_dict(), told)
        note(f"{request.html}: {told}")
        return
    from llmkit.rollout.viewing.printing import print_rollouts

    print_rollouts(shown, whole_prompts=request.prompts)
    print_summary(summarize(files).to_dict())
    note(told)


def describe(found: Found, start: int, count: int) -> str:
    """Which rollouts are shown: `rollouts 11 to 20 of 48 that were asked for, of 256 in all`."""
    if not count:
        return f"no rollouts here; {len(found.spots):,} of {found.num_rollouts:,} were asked for"
    asked = "" if len(found.spots) == found.num_rollouts else f" that were asked for, of {found.num_rollouts:,} in all"
    return f"rollouts {start + 1:,} to {start + count:,} of {len(found.spots):,}{asked}"
