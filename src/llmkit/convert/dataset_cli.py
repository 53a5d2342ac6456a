"""The command `llmkit convert dataset`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit.convert.options import AsJson, Overwrite

EXAMPLES = """\b
Examples:
  llmkit convert dataset chats.jsonl --output chats.parquet                     another type, the same rows
  llmkit convert dataset sharegpt.json --to messages --output chats.jsonl       another format
  llmkit convert dataset chats.jsonl --split train=0.95 --split test=0.05 --output chats.jsonl.d/chats.jsonl
  llmkit convert dataset raw.csv --where "lang == 'en' and len(answer) > 20" --unique --output clean.jsonl
  llmkit convert dataset tokens.jsonl --output tokens.bin                       a memory-mapped token store
\b
The end of the output's name says what is written: .jsonl, .json, .csv, .tsv, .parquet, .arrow, .bin (memory-mapped
tokens) or .h5. Rows stream through, one at a time. Rows that the target cannot hold are listed, and nothing is written
unless --skip-faulty leaves them out. `llmkit plugins list formatters` names the formats.
"""


class FileType(StrEnum):
    """How to read files whose names do not say it."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    ARROW = "arrow"
    TEXT = "text"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(dataset)


def dataset(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Files, directories or patterns.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    reader: Annotated[
        str | None, typer.Option("--from", metavar="NAME", show_default=False, help="Formatter to read rows with.")
    ] = None,
    writer: Annotated[
        str | None,
        typer.Option("--to", metavar="NAME", show_default=False, help="Formatter to write with; unset copies rows."),
    ] = None,
    input_type: Annotated[
        FileType | None,
        typer.Option(metavar="TYPE", show_default=False, help=f"How to read the files: {', '.join(FileType)}."),
    ] = None,
    min_characters: Annotated[
        int | None, typer.Option(metavar="N", min=0, show_default=False, help="Fewest characters of a row's texts.")
    ] = None,
    max_characters: Annotated[
        int | None, typer.Option(metavar="N", min=0, show_default=False, help="Most characters of a row's texts.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPR", show_default=False, help="Condition on the columns that are written."),
    ] = None,
    unique: Annotated[bool, typer.Option("--unique", help="Of rows that are written alike, keep the first.")] = False,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default=False, help="Rows to draw at random.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default=False, help="Most rows, from the start.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SHARE", show_default=False, help="Divide rows at random; once for each file."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of --sample and --split.")] = 0,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="Leave out rows that cannot be read or held.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Convert rows to another format or file type, and choose, draw or divide them.

    Beside the output lies FILE.conversion.json, which says what it was made from.
    """
    from llmkit.convert.datasets.command import DatasetRequest, convert_dataset, parse_splits
    from llmkit.convert.datasets.passes import Choice
    from llmkit.convert.printing import tell
    from llmkit.errors import ConfigError

    if reader is not None and writer is None and output.suffix not in (".bin", ".h5", ".hdf5"):
        raise ConfigError(f"--from {reader} has no effect without --to, which says what to write")
    if seed and sample is None and not split:
        raise ConfigError(f"--seed {seed} has no effect without --sample or --split")
    request = DatasetRequest(
        inputs=tuple(inputs),
        output=output,
        reader=reader or "auto",
        writer=writer,
        input_type=None if input_type is None else input_type.value,
        choice=Choice(min_characters, max_characters, None, unique, sample, limit, seed),
        where=where,
        splits=parse_splits(split or []),
        skip_faulty=skip_faulty,
        overwrite=overwrite,
    )
    document = convert_dataset(request)
    tell(document, _lines(document), as_json=as_json)


def _lines(document: dict[str, Any]) -> list[str]:
    """What was done, for people."""
    checks = document["checks"]
    lines = [
        f"{checks['read']:,} rows read: {checks['filtered']:,} filtered, {checks['repeated']:,} repeated, "
        f"{checks['faulty']:,} faulty."
    ]
    lines += [f"  left out: {fault}" for fault in checks["faults"]]
    return lines + [f"Written: {count:,} rows to {name}" for name, count in checks["rows_written"].items()]
