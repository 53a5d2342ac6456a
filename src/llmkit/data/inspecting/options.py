"""The options of `llmkit data`: which flag sets which key of a run. They have no defaults; the schema does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit import plugins

PATHS = {
    "model": "model.path",
    "dataset": "dataset.name",
    "formatter": "formatter.name",
    "train_on": "data.train_on",
    "max_length": "data.max_length",
    "overlength": "data.overlength",
    "on_error": "data.on_error",
    "num_workers": "data.num_workers",
    "seed": "seed",
}
"""Key of the configuration that each parameter sets."""
HUGGINGFACE_FILES = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves in its directory."""


def settings(parameters: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """What was set on the command line: key of the configuration -> (where it was said, value)."""
    found = {
        PATHS[name]: ("--" + name.replace("_", "-"), value)
        for name, value in parameters.items()
        if name in PATHS and value is not None
    }
    path = parameters["path"]
    if path is not None:
        found.setdefault("dataset.name", ("PATH", dataset_of(path)))
        found["dataset.path"] = ("PATH", path)
    return found


def dataset_of(path: str) -> str:
    """The data-set plugin that reads a path: `files`, or `huggingface` for its directories and names on its hub."""
    place = Path(path).expanduser()
    if place.is_dir():
        return "huggingface" if any((place / name).is_file() for name in HUGGINGFACE_FILES) else "files"
    looks_local = (
        path.startswith(("/", ".", "~")) or path.count("/") > 1 or place.suffix or any(c in path for c in "*?[")
    )
    return "files" if place.exists() or looks_local else "huggingface"


def _complete(kind: str) -> Any:
    def complete(incomplete: str) -> list[str]:
        return [name for name in plugins.names(kind) if name.startswith(incomplete)]

    return complete


def _complete_preset(incomplete: str) -> list[str]:
    from llmkit.config.presets import list_presets

    return [preset.name for preset in list_presets("train") if preset.name.startswith(incomplete)]


Path_ = Annotated[
    str | None,
    typer.Argument(metavar="PATH", help="File, directory, or name of a data set on the Hugging Face hub."),
]
For = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="sft|dpo|grpo",
        help="Whose data it is. Unset: what the preset or the configuration is for, else sft.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset", "-p", metavar="NAME", help="Look at the data of a training preset.", autocompletion=_complete_preset
    ),
]
ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML settings of a run, as for `llmkit train`. Repeatable."),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the run. Repeatable.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="PATH", help="Whose tokenizer and chat template to use [default: the embedded tiny model's]."
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", metavar="NAME", help="Data-set plugin [default: by PATH].", autocompletion=_complete("datasets")
    ),
]
Formatter = Annotated[
    str | None,
    typer.Option(
        "--formatter",
        metavar="NAME",
        help="How a row becomes messages [default: auto, found from the first rows].",
        autocompletion=_complete("formatters"),
    ),
]
TrainOn = Annotated[
    str | None,
    typer.Option("--train-on", metavar="assistant|last_turn|all", help="Which tokens train [default: assistant]."),
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", metavar="TOKENS", help="Most tokens of a sample [default: 2048].")
]
Overlength = Annotated[
    str | None,
    typer.Option(
        "--overlength",
        metavar="POLICY",
        help="What happens to longer ones: error, drop, truncate_right, truncate_left or split [default: error].",
    ),
]
OnError = Annotated[
    str | None,
    typer.Option(
        "--on-error",
        metavar="raise|skip",
        help="What the run would do with faulty rows. They are all listed here; skip accepts up to data.max_skipped of "
        "them, raise [default] ends with exit code 2 if there is one.",
    ),
]
NumWorkers = Annotated[
    int | None, typer.Option("--num-workers", metavar="COUNT", help="Processes that tokenize [default: 0, none].")
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="NUMBER", help="Decides which rows --sample draws.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and no more there.")]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page that needs nothing else, tokens to point at included."),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="COUNT", min=1, help="Count only the first rows.")]
NumCounted = Annotated[
    int, typer.Option("--limit", metavar="COUNT", min=0, help="Count the first rows, for the figures; 0 counts none.")
]

Rows = Annotated[int, typer.Option("--rows", metavar="COUNT", min=0, help="How many rows to show.")]
RowNumbers = Annotated[
    list[int] | None,
    typer.Option("--row", metavar="NUMBER", min=1, help="Show the row with this number, from 1. Repeatable."),
]
Sample = Annotated[bool, typer.Option("--sample", help="Show random rows in place of the first ones.")]
Raw = Annotated[bool, typer.Option("--raw", help="Also show what was read, and the record that was made of it.")]
Tokens = Annotated[bool, typer.Option("--tokens", help="A line for each token: id, weight, piece.")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Save the histogram of lengths as PNG.")]
