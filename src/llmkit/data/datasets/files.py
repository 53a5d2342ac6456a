"""JSON Lines, JSON, CSV and Parquet files: one file, or a directory of them."""

from typing import TYPE_CHECKING

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.contract import Dataset


class Config(Section):
    """Rows of local files."""

    path: str
    """A .jsonl, .json, .csv or .parquet file, or a directory of files of one of these types."""
    split: str | None = None
    """Which files of a directory, by their names (`train.jsonl`, `test.jsonl`); unset takes `train`, or every file when
    no name speaks of a split."""
    limit: int | None = Field(None, ge=1)
    """Most rows, from the start; unset reads all."""


def build(config: Config) -> "Dataset":
    """Open the files and check them.

    Raises:
        DataError: a file is missing, empty, cut off, binary, not UTF-8, or has rows that are not objects.
    """
    from llmkit.data.files.reading import open_path

    return open_path(config.path, config.split, config.limit)
