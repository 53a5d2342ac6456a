"""Sample completions for a data set with any engine, score them, and write them down."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmkit.config import flags
from llmkit.errors import ConfigError, RolloutError
from llmkit.rollout import options
from llmkit.rollout.help import RolloutGroup
from llmkit.rollout.select_cli import select
from llmkit.rollout.view_cli import view

if TYPE_CHECKING:
    from llmkit.config.resolve import Resolved
    from llmkit.config.rollout import RolloutRun

EXAMPLES = """\b
Examples:
  llmkit rollout --preset builtin-tiny               the embedded tiny model on word problems
  llmkit rollout --preset gsm8k --engine vllm --dp 2 --max-rows 200
  llmkit rollout --model DIR --dataset files --dataset-path questions.jsonl --reward gsm8k --group-size 8
  llmkit rollout --preset gsm8k --set dataset.split=train --keep best --above 0 --pairs best-worst
  llmkit rollout --resume
  llmkit rollout view runs/gsm8k-20260101-120000 --sort reward
"""

app = typer.Typer(pretty_exceptions_enable=False, help=__doc__)
app.command("select")(select)
app.command("view")(view)


@app.callback(cls=RolloutGroup, invoke_without_command=True, epilog=EXAMPLES)
def rollout(
    ctx: typer.Context,
    preset: options.Preset = None,
    config: flags.ConfigFiles = None,
    overrides: flags.Overrides = None,
    output_dir: flags.OutputDir = None,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    as_json: flags.Summary = False,
    model: flags.Model = None,
    engine: flags.Engine = None,
    tp: flags.Tp = None,
    pp: flags.Pp = None,
    dp: flags.Dp = None,
    dataset: flags.Dataset = None,
    dataset_path: flags.DatasetPath = None,
    max_rows: options.MaxRows = None,
    workflow: flags.Workflow = None,
    reward: flags.Reward = None,
    group_size: flags.GroupSize = None,
    max_new_tokens: flags.MaxNewTokens = None,
    temperature: flags.Temperature = None,
    top_p: options.TopP = None,
    seed: flags.Seed = None,
    keep: options.Keep = None,
    above: options.Above = None,
    pairs: options.Pairs = None,
    concurrency: options.Concurrency = None,
    max_errors: options.MaxErrors = None,
    device: flags.Device = None,
    threads: flags.Threads = None,
) -> None:
    """Sample completions for a data set with any engine, score them, and write them down."""
    if ctx.invoked_subcommand is not None:
        return
    resolved = resolve_run(ctx.params)
    from llmkit.rollout.run import make_rollouts  # torch is first imported here

    name = Path(preset).stem if preset else "rollout"
    summary = make_rollouts(resolved, name=name, resume=resume, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    if failed := summary.get("num_failed"):
        directory = Path(summary["output"]).parent
        raise RolloutError(
            f"{failed} rollouts failed and are missing; {directory / 'errors.jsonl'} says why. Make them again with: "
            f"llmkit rollout --resume --output-dir {directory}"
        )


def resolve_run(parameters: Mapping[str, Any]) -> "Resolved[RolloutRun]":
    """The settings that a command line asks for.

    Raises:
        ConfigError: there is nothing to sample for, or a setting is wrong.
        CheckpointError: there is no run to resume.
    """
    from llmkit.config.resolve import resolve
    from llmkit.config.rollout import RolloutRun
    from llmkit.runs.run_directory import run_to_resume

    preset, files = parameters["preset"], list(parameters["config"] or ())
    overrides: list[str] = list(parameters["overrides"] or ())
    settings = options.settings(parameters)
    if parameters["resume"] and not preset and not files:
        directory = run_to_resume("rollout", settings, overrides)
        files = [directory / "config.yaml"]
        settings["output_dir"] = ("--resume", str(directory))
    elif not (preset or files or overrides or "dataset.name" in settings or _dataset_in(os.environ)):
        raise ConfigError(
            "llmkit rollout: nothing to sample for. Choose a preset with --preset NAME (`llmkit presets list rollout` "
            "shows them), a file of settings with --config FILE, or a data set with --dataset NAME"
        )
    return resolve(RolloutRun, command="rollout", preset=preset, files=files, options=settings, overrides=overrides)


def _dataset_in(environ: Mapping[str, str]) -> bool:
    return any(name.upper().startswith("LLMKIT__DATASET") for name in environ)
