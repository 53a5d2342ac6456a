"""`llmkit rollout select`: from rollouts to training data."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit.errors import ConfigError


def select(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of rollouts, or directories of runs that made some.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="JSON Lines file to write.")],
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="best|top-N|all", help="Write demonstrations: of each group the best, the N best, or all."
        ),
    ] = None,
    pairs: Annotated[
        str | None, typer.Option(metavar="best-worst", help="Write preference pairs: of each group its best and worst.")
    ] = None,
    above: Annotated[
        float | None,
        typer.Option(metavar="REWARD", help="Only rollouts with more reward than this; of pairs, the better."),
    ] = None,
    margin: Annotated[
        float, typer.Option(metavar="REWARD", min=0, help="By how much more the better one of a pair must be rewarded.")
    ] = 0.0,
    truncated: Annotated[
        bool, typer.Option("--truncated", help="Take completions that were cut at the limit too.")
    ] = False,
    form: Annotated[
        str,
        typer.Option(
            metavar="messages|tokens",
            help="Demonstrations as messages, or as the very tokens that were sampled, which several turns need.",
        ),
    ] = "messages",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON document.")] = False,
) -> None:
    """Turn rollouts into rows that `llmkit train sft` (--keep) or `llmkit train dpo` (--pairs) reads."""
    if (keep is None) == (pairs is None):
        raise ConfigError(
            "llmkit rollout select: say what to write: --keep best (demonstrations) or --pairs best-worst"
        )
    if pairs is not None and form != "messages":
        raise ConfigError(f"--form {form}: pairs are messages")
    if keep is not None and margin:
        raise ConfigError(f"--margin {margin:g} is about --pairs; it has no effect with --keep")
    config = _config(keep=keep, pairs=pairs, above=above, margin=margin, truncated=truncated, form=form)
    from llmkit.rollout.lines import rollout_files
    from llmkit.rollout.selecting import write_demonstrations, write_pairs

    write = write_demonstrations if keep is not None else write_pairs
    figures = write(config, rollout_files(files), output)
    for line in told(figures):
        typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps(figures, indent=2, ensure_ascii=False))


def told(figures: dict[str, Any]) -> list[str]:
    """What was written and what was left out, in words."""
    parts = (
        ("num_truncated", "rollouts left out: cut at the limit (--truncated takes them)"),
        ("num_repeated", "rollouts left out: another one of the group says the same"),
        ("num_unscored", "rollouts left out: no reward"),
        ("num_ties", "groups with several best ones, of which the first was taken"),
        ("num_equal", "groups in which all are rewarded alike"),
        ("num_without", "groups of which nothing was chosen"),
    )
    first = (
        f"{figures['num_rows']:,} rows in {figures['path']}, from {figures['num_rollouts']:,} rollouts of "
        f"{figures['num_groups']:,} groups"
    )
    return [first, *(f"{figures[name]:>9,} {what}" for name, what in parts if figures[name])]


def _config(**values: Any) -> Any:
    from pydantic import ValidationError

    from llmkit.config.rollout import SelectConfig

    try:
        return SelectConfig.model_validate(values)
    except ValidationError as error:
        faults = "\n".join(f"--{fault['loc'][0]} {fault['input']}: {fault['msg']}" for fault in error.errors())
        raise ConfigError(faults) from None
