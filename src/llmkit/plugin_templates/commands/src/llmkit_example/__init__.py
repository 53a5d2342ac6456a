"""Count the rows and columns of a JSON Lines file."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from llmkit.errors import DataError

app = typer.Typer()


@app.command()
def example(
    file: Annotated[Path, typer.Argument(help="A .jsonl file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Count the rows and columns of a JSON Lines file."""
    # Whatever is heavy is imported here, where the work starts, so that help and completion stay quick.
    rows, columns = count(file)
    if as_json:
        typer.echo(json.dumps({"rows": rows, "columns": columns}))
    else:
        typer.echo(f"{rows} rows; columns: {', '.join(columns)}")


def count(file: Path) -> tuple[int, dict[str, int]]:
    """Number of rows, and how many of them have each column.

    Raises:
        DataError: the file cannot be read, or a line is not a JSON object.
    """
    columns: Counter[str] = Counter()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            columns.update(dict(json.loads(line)).keys())
        except (TypeError, ValueError) as error:
            raise DataError(f"{file}:{number}: not a JSON object") from error
    return len(lines), dict(columns)
