"""The command `llmkit convert checkpoint`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit.convert.options import AsJson, DType, Overwrite, WeightType

EXAMPLES = """\b
Examples:
  llmkit convert checkpoint model --to dcp --output model-dcp                        for torch.distributed.checkpoint
  llmkit convert checkpoint model-dcp --to safetensors --output model --verify
  llmkit convert checkpoint model.pt --to safetensors --rename module.= --output model
  llmkit convert checkpoint model --to safetensors --dtype bfloat16 --max-shard-gb 2 --output smaller
  llmkit convert checkpoint model --to gguf --quantize q4_k_m --output model.gguf    for llama.cpp
  llmkit convert checkpoint model --quantize int8_weight_only --output model-int8    by torchao
  llmkit convert checkpoint model --pad-vocab-to-multiple 128 --output padded
\b
Reads model directories (model.safetensors or pytorch_model.bin, whole or in shards), single files (.safetensors, .pt,
.pth, .bin) and distributed checkpoints. Tensors are read and written in parts of 32 MiB; only torchao wants the model
in memory. Configuration and tokenizer come along from a model directory. --quantize: with --to gguf q8_0, q6_k,
q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0; with --to safetensors int8_weight_only, int4_weight_only.
"""


class To(StrEnum):
    """What to write."""

    SAFETENSORS = "safetensors"
    TORCH = "torch"
    DCP = "dcp"
    GGUF = "gguf"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(checkpoint)


def checkpoint(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Model directory, file or distributed checkpoint.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="Directory to write; a file for torch and gguf.")
    ],
    to: Annotated[To, typer.Option(metavar="LAYOUT", help=f"What to write: {', '.join(To)}.")] = To.SAFETENSORS,
    dtype: WeightType = DType.SAME,
    quantize: Annotated[
        str | None, typer.Option(metavar="KIND", show_default=False, help="Round weights to fewer bits; see below.")
    ] = None,
    max_shard_gb: Annotated[
        float | None,
        typer.Option(metavar="N", min=1e-6, show_default=False, help="Size of each safetensors file. [default: 5]"),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", show_default=False, help="New start for names that begin so; may be repeated."),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default=False, help="Rows of embedding and head; new ones are the mean."),
    ] = None,
    pad_vocab_to_multiple: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default=False, help="Round up the rows of both.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the result and compare names, shapes, types and every value.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Convert a model's weights to another layout, type or size of files.

    The result appears whole or not at all, with conversion.json, which says what it was made from.
    """
    import torch

    from llmkit.convert.checkpoints.command import CheckpointRequest, convert_checkpoint
    from llmkit.convert.printing import tell
    from llmkit.errors import ConfigError

    if max_shard_gb is not None and to is not To.SAFETENSORS:
        raise ConfigError(f"--max-shard-gb {max_shard_gb:g} has no effect on --to {to}")
    if vocab_size is not None and pad_vocab_to_multiple is not None:
        raise ConfigError("--vocab-size and --pad-vocab-to-multiple both say how many rows there are to be; give one")
    request = CheckpointRequest(
        source=source,
        output=output,
        layout=to.value,  # type: ignore[arg-type]
        dtype=None if dtype is DType.SAME else getattr(torch, dtype.value),
        quantize=quantize,
        max_shard_bytes=int((max_shard_gb or 5) * 1e9),
        renames=parse_renames(rename or []),
        vocab_size=vocab_size,
        vocab_multiple=pad_vocab_to_multiple,
        verify=verify,
        overwrite=overwrite,
    )
    document = convert_checkpoint(request)
    tell(document, _lines(document), as_json=as_json)


def parse_renames(texts: list[str]) -> dict[str, str]:
    """New starts of names by the old ones.

    Raises:
        ConfigError: one is not of the form OLD=NEW.
    """
    from llmkit.errors import ConfigError

    if bad := next((text for text in texts if "=" not in text or text.startswith("=")), None):
        raise ConfigError(f"--rename {bad}: give the old start and the new one, such as module.= or model.=backbone.")
    return {old: new for old, _, new in (text.partition("=") for text in texts)}


def _lines(document: dict[str, Any]) -> list[str]:
    """What was done, for people."""
    from llmkit.formatting import format_bytes

    checks, options = document["checks"], document["options"]
    line = (
        f"Converted {checks['tensors']} tensors ({format_bytes(checks['bytes'])}) from {options['from']} to "
        f"{options['to']}"
    )
    if "values" in checks:
        line += f", values {checks['values']}"
    lines = [f"{line}."]
    if checks.get("relative_error"):
        what = "logits" if "same_tokens" in checks else "weights"
        lines.append(f"Rounding has changed the {what} by {checks['relative_error']:.2%} of their size (RMS).")
    return [*lines, f"Written: {document['output']}"]
