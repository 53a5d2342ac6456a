"""The command `llmkit convert adapter`."""

from pathlib import Path
from typing import Annotated

import typer

from llmkit.convert.options import AsJson, Base, Overwrite, Revision, TrustRemoteCode

EXAMPLES = """\b
Examples:
  llmkit convert adapter runs/loha/checkpoints/step-200 --rank 16 --output lora       for vLLM and SGLang
  llmkit convert adapter lora-r64 --rank 8 --output lora-r8                           a lower rank
\b
By singular values of each update: without --rank exact but for rounding, with as high a rank as each module needs.
Kinds that are more than a matrix added to the weight are refused; merge them instead.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(adapter)


def adapter(
    source: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Directory of an adapter in PEFT's layout.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory to write the LoRA to.")],
    rank: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default=False, help="Of every module; unset takes what each needs."),
    ] = None,
    base: Base = None,
    revision: Revision = None,
    overwrite: Overwrite = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Convert an adapter to a plain LoRA, or to one of a lower rank, and say what that loses.

    The base model is loaded to compare the logits of both.
    """
    from llmkit.convert.adapters.command import AdapterRequest, convert_adapter
    from llmkit.convert.printing import tell

    document = convert_adapter(AdapterRequest(source, output, rank, base, revision, overwrite, trust_remote_code))
    checks, ranks = document["checks"], document["options"]["ranks"]
    lines = [
        f"Converted {document['inputs']['adapter']['kind']} to a LoRA of rank {ranks['min']} to {ranks['max']}.",
        f"Left out of the updates: {checks['update_error']:.2%} of their norm. Largest difference of logits: "
        f"{checks['largest_difference']:.3g} (largest logit {checks['largest_logit']:.3g}, same likeliest token at "
        f"{checks['same_tokens']:.1%} of positions).",
        f"Written: {document['output']}",
    ]
    tell(document, lines, as_json=as_json)
