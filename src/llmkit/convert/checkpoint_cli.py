"""The command `llmkit convert checkpoint`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  llmkit convert checkpoint model --to dcp --output model-dcp                        for torch.distributed.checkpoint
  llmkit convert checkpoint model-dcp --to safetensors --output model --verify
  llmkit convert checkpoint model.pt --to safetensors --rename module.= --output model
  llmkit convert checkpoint model --to safetensors --dtype bfloat16 --max-shard-gb 2 --output smaller
\b
Reads model directories (model.safetensors or pytorch_model.bin, whole or in shards), single files (.safetensors, .pt,
.pth, .bin) and distributed checkpoints. Safetensors are written one tensor at a time; the other two want all weights at
once. Configuration and tokenizer come along from a model directory.
"""


class To(StrEnum):
    """What to write."""

    SAFETENSORS = "safetensors"
    TORCH = "torch"
    DCP = "dcp"


class DType(StrEnum):
    """Type of the weights."""

    SAME = "same"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(checkpoint)


def checkpoint(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Model directory, file or distributed checkpoint.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="Directory to write; a file with --to torch.")
    ],
    to: Annotated[To, typer.Option(metavar="LAYOUT", help=f"What to write: {', '.join(To)}.")] = To.SAFETENSORS,
    dtype: Annotated[
        DType, typer.Option(metavar="TYPE", help=f"Of floating-point tensors: {', '.join(DType)}.")
    ] = DType.SAME,
    max_shard_gb: Annotated[
        float | None,
        typer.Option(metavar="N", min=1e-6, show_default=False, help="Size of each safetensors file. [default: 5]"),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", show_default=False, help="New start for names that begin so; may be repeated."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the result and compare names, shapes, types and every value.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier conversion wrote.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as one JSON document.")] = False,
) -> None:
    """Convert a model's weights to another layout, type or size of files.

    The result appears whole or not at all, with conversion.json, which says what it was made from.
    """
    import torch

    from llmkit.convert.checkpoints.command import CheckpointRequest, convert_checkpoint
    from llmkit.convert.printing import tell
    from llmkit.errors import ConfigError
    from llmkit.formatting import format_bytes

    if max_shard_gb is not None and to is not To.SAFETENSORS:
        raise ConfigError(f"--max-shard-gb {max_shard_gb:g} has no effect on --to {to}")
    renames = {old: new for old, _, new in (text.partition("=") for text in rename or [])}
    if bad := next((text for text in rename or [] if "=" not in text or text.startswith("=")), None):
        raise ConfigError(f"--rename {bad}: give the old start and the new one, such as module.= or model.=backbone.")
    request = CheckpointRequest(
        source=source,
        output=output,
        layout=to.value,  # type: ignore[arg-type]
        dtype=None if dtype is DType.SAME else getattr(torch, dtype.value),
        max_shard_bytes=int((max_shard_gb or 5) * 1e9),
        renames=renames,
        verify=verify,
        overwrite=overwrite,
    )
    document = convert_checkpoint(request)
    checks, options = document["checks"], document["options"]
    values = f", values {checks['values']}" if "values" in checks else ""
    line = (
        f"Converted {checks['tensors']} tensors ({format_bytes(checks['bytes'])}) from {options['from']} to "
        f"{options['to']}{values}."
    )
    tell(document, [line, f"Written: {document['output']}"], as_json=as_json)
