"""Open data files: as one data set, or as one stream."""

from collections.abc import Mapping, Sequence

from llmkit.data.files.file_rows import FileRows, FilesOptions
from llmkit.data.files.file_stream import FileStream
from llmkit.data.files.file_types import FileType
from llmkit.data.files.find import find_files
from llmkit.data.files.plain_text import TextRows


def open_path(
    path: str | Sequence[str],
    split: str | None = None,
    limit: int | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    file_type: FileType | None = None,
    text_rows: TextRows = "line",
) -> FileRows:
    """Rows of files, one file after the other, to be read in any order.

    Args:
        path: file, directory, pattern, or several of them; see `find_files`.
        split: which files of a directory; see `find_files`.
        limit: most rows, from the start; None reads all.
        columns: new name -> name in the files.
        file_type: how to read the files, whatever their names end in.
        text_rows: what is a row of a text file.
    Raises:
        DataError: a file is missing or cannot be used.
    """
    options = FilesOptions(limit, dict(columns or {}), text_rows)
    return FileRows(find_files(path, split, file_type), options)


def open_stream(
    path: str | Sequence[str],
    split: str | None = None,
    limit: int | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    file_type: FileType | None = None,
    text_rows: TextRows = "line",
) -> FileStream:
    """The same rows, to be read from front to back only: without an index, so that it starts at once.

    Raises:
        DataError: a file is missing, or is not what its name says.
    """
    options = FilesOptions(limit, dict(columns or {}), text_rows)
    return FileStream(find_files(path, split, file_type), options)
