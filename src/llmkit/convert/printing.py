"""What a conversion tells at its end."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer


def tell(document: Mapping[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """Print the manifest as JSON on standard output, or lines for people on standard error.

    Args:
        document: what the manifest says.
        lines: what was done; the notes of the manifest follow.
        as_json: which of the two.
    """
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for line in (*lines, *(f"note: {note}" for note in document["notes"])):
        print(line, file=sys.stderr, flush=True)
