"""`llmkit rollout view`: look at rollouts, of `llmkit rollout` or of training with rewards."""

from pathlib import Path
from typing import Annotated

import typer

from llmkit.errors import ConfigError

ORDER = "file|group|reward|-reward|length|-length|logprob|-logprob"


def view(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of rollouts, or directories of runs that made some.")
    ],
    sort: Annotated[str, typer.Option(metavar=ORDER, help="Order; a minus puts the highest first.")] = "file",
    group: Annotated[int | None, typer.Option(metavar="NUMBER", help="Only this group.")] = None,
    min_reward: Annotated[float | None, typer.Option(metavar="NUMBER", help="Only rewards from here.")] = None,
    max_reward: Annotated[float | None, typer.Option(metavar="NUMBER", help="Only rewards up to here.")] = None,
    stop_reason: Annotated[str | None, typer.Option(metavar="stop|length", help="Only those that ended so.")] = None,
    search: Annotated[str, typer.Option(metavar="TEXT", help="Only those with this text.", show_default=False)] = "",
    limit: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, help="Rollouts of a page. [default: 10; 200 with --html]")
    ] = None,
    page: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Which page, from 1.")] = 1,
    prompts: Annotated[bool, typer.Option("--prompts", help="Show prompts as the model saw them.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one HTML file in place of text."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="PATH", help="Whose tokenizer to take; that of the run is found by itself.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rollouts as JSON Lines, as they are.")] = False,
) -> None:
    """Show rollouts: rewards, tokens coloured by their probability, weight versions; in the terminal or as a page."""
    from llmkit.rollout.viewing.finding import ORDERS, Wanted
    from llmkit.rollout.viewing.showing import Request, show

    if sort not in ORDERS:
        raise ConfigError(f"--sort {sort}: one of {', '.join(ORDERS)}")
    if html is not None and as_json:
        raise ConfigError("--html and --json do not go together")
    wanted = Wanted(group, min_reward, max_reward, stop_reason, search)
    show(files, wanted, Request(sort, limit, page, prompts, html, model, as_json))
