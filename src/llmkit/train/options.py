"""The options of `llmkit train`: which flag sets which key. They have no defaults; the schema does."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from llmkit.config import options
from llmkit.errors import ConfigError

PATHS = {
    "output_dir": "output_dir",
    "model": "model.path",
    "dataset": "dataset.name",
    "dataset_path": "dataset.path",
    "adapter": "adapter.name",
    "optimizer": "optim.optimizer.name",
    "learning_rate": "optim.learning_rate",
    "max_steps": "max_steps",
    "num_epochs": "num_epochs",
    "rows_per_step": "batch.rows_per_step",
    "prompts_per_step": "batch.prompts_per_step",
    "max_length": "data.max_length",
    "seed": "seed",
    "eval_every": "eval.every_steps",
    "checkpoint_every": "checkpoint.every_steps",
    "device": "device.device",
    "threads": "device.threads",
    "trackers": "trackers",
    "engine": "engine.name",
    "workflow": "workflow.name",
    "reward": "reward.name",
    "group_size": "algorithm.group_size",
    "max_new_tokens": "sampling.max_new_tokens",
    "temperature": "sampling.temperature",
    "kl_coef": "algorithm.kl_coef",
    "losses": "algorithm.losses",
    **options.SERVER_PATHS,
}
"""Key of the configuration that each parameter sets. Their help and defaults come from the schema."""

KINDS = {
    "dataset": "datasets",
    "adapter": "adapters",
    "optimizer": "optimizers",
    "trackers": "trackers",
    "engine": "engines",
    "workflow": "workflows",
    "reward": "rewards",
}
"""Parameters that choose a plugin, and of which kind."""


PROFILED = 3
"""Steps that `--profile` records."""
REPEATED = {"trackers": "--tracker", "losses": "--loss"}
"""Flags that are typed once for each value."""


def flag(parameter: str) -> str:
    """`learning_rate` as it is typed: `--learning-rate`."""
    return options.flag(parameter, REPEATED)


def settings(parameters: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """What was set on the command line: key of the configuration -> (flag, value).

    Raises:
        ConfigError: the weight of a loss is no number.
    """
    given = dict(parameters)
    if given.get("losses"):
        given["losses"] = dict(weighted_loss(text) for text in given["losses"])
    return options.settings(given, PATHS, REPEATED)


def profile_steps(parameters: Mapping[str, Any]) -> int:
    """How many steps to profile; 0 when nobody asked."""
    return parameters["profile_steps"] or (PROFILED if parameters["profile"] else 0)


def weighted_loss(text: str) -> tuple[str, float]:
    """`sft=0.5` as a name and its weight, which is 1 when none is given.

    Raises:
        ConfigError: the weight is no number.
    """
    name, equals, weight = text.partition("=")
    try:
        return name, float(weight) if equals else 1.0
    except ValueError:
        raise ConfigError(f"--loss {text}: the weight must be a number, as in --loss sft=0.5") from None


def _complete_algorithm(ctx: typer.Context, incomplete: str) -> list[str]:
    from llmkit.train.algorithm_presets import algorithm_names

    return [name for name in algorithm_names(f"train/{ctx.info_name}") if name.startswith(incomplete)]


def _plugin(parameter: str) -> Any:
    return options.plugin_option(KINDS[parameter], flag(parameter))


Preset = Annotated[str | None, options.preset_option(lambda ctx: f"train/{ctx.info_name}")]
Algorithm = Annotated[
    str | None,
    typer.Option(
        "--algorithm",
        metavar="NAME",
        help="An algorithm's settings, over the preset's and under those of --config. See `llmkit presets list`.",
        autocompletion=_complete_algorithm,
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the last checkpoint of --output-dir, or of the newest run here.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check settings, plugins and data, show a sample's mask and memory, and stop.")
]
Profile = Annotated[
    bool, typer.Option("--profile", help="Profile a few steps: profile/trace.json.gz and a table of operations.")
]
ProfileSteps = Annotated[
    int | None,
    typer.Option(
        "--profile-steps", metavar="COUNT", min=1, help=f"Steps to profile; implies --profile. [default: {PROFILED}]"
    ),
]

Adapter = Annotated[str | None, _plugin("adapter")]
Optimizer = Annotated[str | None, _plugin("optimizer")]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", metavar="NUMBER")]
MaxSteps = Annotated[int | None, typer.Option("--max-steps", metavar="COUNT")]
NumEpochs = Annotated[float | None, typer.Option("--num-epochs", metavar="NUMBER")]
RowsPerStep = Annotated[int | None, typer.Option("--rows-per-step", metavar="COUNT")]
PromptsPerStep = Annotated[int | None, typer.Option("--prompts-per-step", metavar="COUNT")]
MaxLength = Annotated[int | None, typer.Option("--max-length", metavar="TOKENS")]
EvalEvery = Annotated[int | None, typer.Option("--eval-every", metavar="STEPS")]
CheckpointEvery = Annotated[int | None, typer.Option("--checkpoint-every", metavar="STEPS")]
Nproc = Annotated[
    int | None,
    typer.Option("--nproc", metavar="COUNT", min=1, help="Processes to start on this machine, one for each GPU."),
]
Trackers = Annotated[list[str] | None, _plugin("trackers")]
Losses = Annotated[
    list[str] | None,
    typer.Option("--loss", metavar="NAME[=WEIGHT]", help="A preference loss; several are added up. [default: sigmoid]"),
]
KLCoef = Annotated[float | None, typer.Option("--kl-coef", metavar="NUMBER")]
