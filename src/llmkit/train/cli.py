"""Train a model: on demonstrations, on preferences, or by reinforcement learning."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmkit.config import flags
from llmkit.distributed.place import LAUNCHED, find_place, is_main
from llmkit.errors import ConfigError
from llmkit.train import options
from llmkit.train.help import TrainCommand
from llmkit.train.invocation import Invocation

if TYPE_CHECKING:
    from llmkit.config.resolve import Resolved

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

SFT_EXAMPLES = """\b
Examples:
  llmkit train sft --preset arithmetic
  llmkit train sft --model DIR --dataset files --dataset-path chats.jsonl --adapter lora
  llmkit train sft --config run.yaml --optimizer muon --set optim.schedule=cosine --dry-run
  llmkit train sft --resume
"""
DPO_EXAMPLES = """\b
Examples:
  llmkit train dpo --model DIR --dataset files --dataset-path pairs.jsonl
  llmkit train dpo --preset preference --dataset-path pairs.jsonl --loss ipo --set algorithm.beta=0.2
  llmkit train dpo --config run.yaml --algorithm rpo --adapter lora
  llmkit train dpo --resume --output-dir runs/pairs
"""
GRPO_EXAMPLES = """\b
Examples:
  llmkit train grpo --preset gsm8k-tiny
  llmkit train grpo --preset gsm8k --model DIR --dataset-path DIR --max-steps 50
  llmkit train grpo --preset gsm8k --engine vllm --tp 2 --dp 2 --nproc 4
  llmkit train grpo --preset gsm8k --algorithm dapo --set algorithm.clip_high=0.3 --dry-run
  llmkit train grpo --resume
"""


@app.command(cls=TrainCommand, epilog=SFT_EXAMPLES)
def sft(
    ctx: typer.Context,
    preset: options.Preset = None,
    algorithm: options.Algorithm = None,
    config: flags.ConfigFiles = None,
    overrides: flags.Overrides = None,
    output_dir: flags.OutputDir = None,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    profile: options.Profile = False,
    profile_steps: options.ProfileSteps = None,
    as_json: flags.Summary = False,
    model: flags.Model = None,
    dataset: flags.Dataset = None,
    dataset_path: flags.DatasetPath = None,
    adapter: options.Adapter = None,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    max_steps: options.MaxSteps = None,
    num_epochs: options.NumEpochs = None,
    rows_per_step: options.RowsPerStep = None,
    max_length: options.MaxLength = None,
    seed: flags.Seed = None,
    eval_every: options.EvalEvery = None,
    checkpoint_every: options.CheckpointEvery = None,
    device: flags.Device = None,
    threads: flags.Threads = None,
    nproc: options.Nproc = None,
    trackers: options.Trackers = None,
) -> None:
    """Fine-tune on demonstrations: cross-entropy of the answers' tokens."""
    run("train/sft", ctx)


@app.command(cls=TrainCommand, epilog=DPO_EXAMPLES)
def dpo(
    ctx: typer.Context,
    preset: options.Preset = None,
    algorithm: options.Algorithm = None,
    config: flags.ConfigFiles = None,
    overrides: flags.Overrides = None,
    output_dir: flags.OutputDir = None,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    profile: options.Profile = False,
    profile_steps: options.ProfileSteps = None,
    as_json: flags.Summary = False,
    model: flags.Model = None,
    dataset: flags.Dataset = None,
    dataset_path: flags.DatasetPath = None,
    adapter: options.Adapter = None,
    losses: options.Losses = None,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    max_steps: options.MaxSteps = None,
    num_epochs: options.NumEpochs = None,
    rows_per_step: options.RowsPerStep = None,
    max_length: options.MaxLength = None,
    seed: flags.Seed = None,
    eval_every: options.EvalEvery = None,
    checkpoint_every: options.CheckpointEvery = None,
    device: flags.Device = None,
    threads: flags.Threads = None,
    nproc: options.Nproc = None,
    trackers: options.Trackers = None,
) -> None:
    """Train on pairs of a chosen and a rejected answer (DPO)."""
    run("train/dpo", ctx)


@app.command(cls=TrainCommand, epilog=GRPO_EXAMPLES)
def grpo(
    ctx: typer.Context,
    preset: options.Preset = None,
    algorithm: options.Algorithm = None,
    config: flags.ConfigFiles = None,
    overrides: flags.Overrides = None,
    output_dir: flags.OutputDir = None,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    profile: options.Profile = False,
    profile_steps: options.ProfileSteps = None,
    as_json: flags.Summary = False,
    model: flags.Model = None,
    dataset: flags.Dataset = None,
    dataset_path: flags.DatasetPath = None,
    adapter: options.Adapter = None,
    engine: flags.Engine = None,
    tp: flags.Tp = None,
    pp: flags.Pp = None,
    dp: flags.Dp = None,
    workflow: flags.Workflow = None,
    reward: flags.Reward = None,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    max_steps: options.MaxSteps = None,
    num_epochs: options.NumEpochs = None,
    prompts_per_step: options.PromptsPerStep = None,
    group_size: flags.GroupSize = None,
    max_new_tokens: flags.MaxNewTokens = None,
    temperature: flags.Temperature = None,
    kl_coef: options.KLCoef = None,
    max_length: options.MaxLength = None,
    seed: flags.Seed = None,
    eval_every: options.EvalEvery = None,
    checkpoint_every: options.CheckpointEvery = None,
    device: flags.Device = None,
    threads: flags.Threads = None,
    nproc: options.Nproc = None,
    trackers: options.Trackers = None,
) -> None:
    """Learn from rewards: sample groups of answers, score them, reinforce the better ones (GRPO)."""
    run("train/grpo", ctx)


def run(command: str, ctx: typer.Context) -> None:
    """Run the story of a training command, in the processes that the command line asks for.

    Raises:
        ConfigError: a setting is wrong, or the processes cannot be arranged so.
    """
    resolved, invocation = prepare(command, ctx.params)
    num_processes = check_processes(resolved.run, ctx.params["nproc"])
    if num_processes is not None and not invocation.dry_run:
        from llmkit.distributed.launch import launch

        raise typer.Exit(launch(ctx.find_root().obj or sys.argv[1:], num_processes))
    if num_processes is not None:
        from llmkit.train.dry_run.processes import tell_of_processes

        tell_of_processes(resolved.run, num_processes)
    story = import_module(f"llmkit.{command.replace('/', '.')}")  # torch is first imported here
    from llmkit.train.together import together

    with together(resolved.run):
        summary = story.train(resolved, invocation)
    if is_main():
        show(summary, invocation)


def check_processes(settings: Any, nproc: int | None) -> int | None:
    """How many processes to start here; None when this one is to do the work.

    Raises:
        ConfigError: `--nproc` in a process that was started as one of several, or a number that does not fit.
    """
    from llmkit.distributed.dimensions import check_units, find_dimensions

    place = find_place()
    launched = LAUNCHED in os.environ
    if nproc is not None and place.world_size > 1 and not launched:
        raise ConfigError(
            f"--nproc {nproc}: this is process {place.rank} of {place.world_size} already (RANK and WORLD_SIZE are "
            "set); leave --nproc out under torchrun"
        )
    dimensions = find_dimensions(settings.parallel, place.world_size if launched else nproc or place.world_size)
    check_units(dimensions, *units_of(settings))
    return nproc if nproc is not None and nproc > 1 and not launched else None


def units_of(settings: Any) -> tuple[str, int | None]:
    """Which setting says how many pieces of work a step has, and how many."""
    batch = settings.batch
    if hasattr(batch, "prompts_per_step"):
        count = batch.prompts_per_step * settings.algorithm.group_size
        return "batch.prompts_per_step x algorithm.group_size", count
    return "batch.rows_per_step", batch.rows_per_step if batch.tokens_per_step is None else None


def prepare(command: str, parameters: Mapping[str, Any]) -> tuple["Resolved[Any]", Invocation]:
    """Resolve the configuration that a command line asks for.

    Raises:
        ConfigError: there is nothing to train on, or a setting is wrong.
        CheckpointError: there is no run to resume.
    """
    from llmkit.config.resolve import resolve
    from llmkit.config.runs import schema_of
    from llmkit.runs.run_directory import run_to_resume

    preset: str | None = parameters["preset"]
    files = [Path(file) for file in parameters["config"] or ()]
    overrides: list[str] = list(parameters["overrides"] or ())
    settings = options.settings(parameters)
    resumed = parameters["resume"] and not preset and not files
    if resumed:
        directory = run_to_resume(command, settings, overrides)
        files = [directory / "config.yaml"]
        settings["output_dir"] = ("--resume", str(directory))
    elif not (preset or files or overrides or _names_dataset(settings, os.environ)):
        raise ConfigError(_nothing_to_train_on(command))
    if parameters["algorithm"]:
        files = _with_algorithm(command, parameters["algorithm"], files, resumed=resumed)
    resolved = resolve(
        schema_of(command), command=command, preset=preset, files=files, options=settings, overrides=overrides
    )
    name = Path(preset).stem if preset else command.rpartition("/")[2]
    invocation = Invocation(
        name, parameters["resume"], parameters["dry_run"], parameters["as_json"], options.profile_steps(parameters)
    )
    return resolved, invocation


def _with_algorithm(command: str, name: str, files: Sequence[Path], *, resumed: bool) -> list[Path]:
    """The files of a run with an algorithm's settings: under the user's own, but over those of a run to resume."""
    from llmkit.train.algorithm_presets import find_algorithm

    path = find_algorithm(command, name)
    return [*files, path] if resumed else [path, *files]


def show(summary: Mapping[str, Any], invocation: Invocation) -> None:
    """Print a run's summary on standard output when it was asked for; tables for people are printed by the run."""
    if invocation.json:
        typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))


def _names_dataset(settings: Mapping[str, tuple[str, Any]], environ: Mapping[str, str]) -> bool:
    keys = [*settings, *(name.lower().removeprefix("llmkit__") for name in environ if name.startswith("LLMKIT__"))]
    return any(key.startswith("dataset") for key in keys)


def _nothing_to_train_on(command: str) -> str:
    return (
        f"llmkit {command.replace('/', ' ')}: nothing to train on. Choose a preset with --preset NAME "
        f"(`llmkit presets list {command}` shows them), a file of settings with --config FILE, "
        "or a data set with --dataset NAME"
    )
