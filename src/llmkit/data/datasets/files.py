"""JSON Lines, JSON, CSV, Parquet, Arrow and text files, packed or not: files, directories and patterns."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.contract import Dataset, Stream


class Config(Section):
    """Rows of local files."""

    path: str | list[str]
    """A file (.jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .feather, .txt, .md; the texts also as .gz or
    .zst), a directory of files of one type, a pattern (`data/**/*.jsonl`), or a list of these."""
    split: str | None = None
    """Which files, by their names (`train.jsonl`, `test.jsonl`); unset takes all that a pattern fits, and of a
    directory `train`, or every file when no name speaks of a split."""
    limit: int | None = Field(None, ge=1)
    """Most rows, from the start; unset reads all."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns to rename: the new name, and the name that the files have (`prompt: question`)."""
    streaming: bool = False
    """Read from front to back without an index: starts at once and needs no memory for the rows, whatever their number;
    rows are then shuffled in blocks."""
    file_type: Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "text"] | None = None
    """How to read the files; unset goes by the end of their names."""
    text_rows: Literal["line", "paragraph", "file"] = "line"
    """What is a row (`text`) of a text file; paragraphs end at a blank line, and blank lines are no rows."""


def build(config: Config) -> "Dataset | Stream":
    """Open the files: all of them are indexed and checked, or, streaming, only looked at.

    Raises:
        DataError: a file is missing, empty, cut off, binary, packed otherwise than its name says, or not UTF-8.
    """
    from llmkit.data.files.reading import open_path, open_stream

    opened = open_stream if config.streaming else open_path
    return opened(
        config.path,
        config.split,
        config.limit,
        columns=config.columns,
        file_type=config.file_type,
        text_rows=config.text_rows,
    )
