"""Options that several of the commands `llmkit convert ...` share."""

from enum import StrEnum
from typing import Annotated

import typer


class DType(StrEnum):
    """Type of weights."""

    SAME = "same"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


WeightType = Annotated[
    DType, typer.Option(metavar="TYPE", help=f"Of weights with a floating point: {', '.join(DType)}.")
]
Base = Annotated[
    str | None,
    typer.Option(metavar="MODEL", show_default=False, help="Base model; by default the one the adapter names."),
]
Revision = Annotated[
    str | None, typer.Option(metavar="REV", show_default=False, help="Revision of a base model from the hub.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier conversion wrote.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the base model.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the manifest as one JSON document.")]
