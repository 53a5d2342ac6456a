"""The options of `llmkit rollout`: which flag sets which key. They have no defaults; the schema does."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from llmkit.config import options

PATHS = {
    "output_dir": "output_dir",
    "model": "model.path",
    "dataset": "dataset.name",
    "dataset_path": "dataset.path",
    "engine": "engine.name",
    **options.SERVER_PATHS,
    "workflow": "workflow.name",
    "reward": "reward.name",
    "group_size": "group_size",
    "max_rows": "max_rows",
    "max_new_tokens": "sampling.max_new_tokens",
    "temperature": "sampling.temperature",
    "top_p": "sampling.top_p",
    "seed": "seed",
    "concurrency": "concurrency",
    "max_errors": "max_errors",
    "keep": "select.keep",
    "pairs": "select.pairs",
    "above": "select.above",
    "device": "device.device",
    "threads": "device.threads",
}
"""Key of the configuration that each parameter sets. Their help and defaults come from the schema."""
KINDS = {"dataset": "datasets", "engine": "engines", "workflow": "workflows", "reward": "rewards"}
"""Parameters that choose a plugin, and of which kind."""
FLAGS: dict[str, str] = {}
"""Flags that are not spelled as their parameter: none."""


def settings(parameters: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """What was set on the command line: key of the configuration -> (flag, value)."""
    return options.settings(parameters, PATHS, FLAGS)


Preset = Annotated[str | None, options.preset_option(lambda ctx: "rollout")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Make what is missing of the run in --output-dir, or of the newest run here.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check settings, plugins and data, show the first prompt, and stop.")
]
MaxRows = Annotated[int | None, typer.Option("--max-rows", metavar="COUNT")]
TopP = Annotated[float | None, typer.Option("--top-p", metavar="NUMBER")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", metavar="COUNT")]
MaxErrors = Annotated[int | None, typer.Option("--max-errors", metavar="COUNT")]
Keep = Annotated[str | None, typer.Option("--keep", metavar="best|top-N|all")]
Above = Annotated[float | None, typer.Option("--above", metavar="REWARD")]
Pairs = Annotated[str | None, typer.Option("--pairs", metavar="best-worst")]
