"""The options that several commands have. Where one has no help here, the schema's text of its key is shown."""

from pathlib import Path
from typing import Annotated

import typer

from llmkit.config import options

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="YAML settings over the preset's; later files win. Repeatable."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set any key; wins over all else. `~KEY` resets to the default. Repeatable."
    ),
]
Tp = Annotated[
    int | None,
    typer.Option(
        "--tp",
        metavar="COUNT",
        help="GPUs that each layer of a server is divided among, for engines that start servers.",
    ),
]
Pp = Annotated[
    int | None, typer.Option("--pp", metavar="COUNT", help="Stages that the layers of a server are divided into.")
]
Dp = Annotated[int | None, typer.Option("--dp", metavar="COUNT", help="Servers to start, each with the whole model.")]
OutputDir = Annotated[str | None, typer.Option("--output-dir", metavar="DIR")]
Summary = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON document on standard output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

Model = Annotated[str | None, typer.Option("--model", metavar="PATH")]
Dataset = Annotated[str | None, options.plugin_option("datasets", "--dataset")]
DatasetPath = Annotated[
    str | None,
    typer.Option("--dataset-path", metavar="PATH", help="File, directory or hub name, for data sets that take a path."),
]
Engine = Annotated[str | None, options.plugin_option("engines", "--engine")]
Workflow = Annotated[str | None, options.plugin_option("workflows", "--workflow")]
Reward = Annotated[str | None, options.plugin_option("rewards", "--reward")]
GroupSize = Annotated[int | None, typer.Option("--group-size", metavar="COUNT")]
MaxNewTokens = Annotated[int | None, typer.Option("--max-new-tokens", metavar="TOKENS")]
Temperature = Annotated[float | None, typer.Option("--temperature", metavar="NUMBER")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="NUMBER")]
Device = Annotated[str | None, typer.Option("--device", metavar="NAME")]
Threads = Annotated[int | None, typer.Option("--threads", metavar="COUNT")]
