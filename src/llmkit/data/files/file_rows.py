"""The rows of several files as one data set."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate

from llmkit.data.files.columns import rename
from llmkit.data.files.file_types import DataFile, open_rows
from llmkit.data.files.local_file import LocalFile
from llmkit.data.files.plain_text import TextRows
from llmkit.types import Record, Row


@dataclass(frozen=True)
class FilesOptions:
    """What decides the rows beside the files.

    Attributes:
        limit: most rows, from the start; None reads all.
        columns: new name -> name in the files.
        text_rows: what is a row of a text file.
    """

    limit: int | None = None
    columns: dict[str, str] = field(default_factory=dict)
    text_rows: TextRows = "line"


class FileRows:
    """Rows of files, one file after the other."""

    def __init__(self, files: Sequence[DataFile], options: FilesOptions) -> None:
        """Open every file.

        Raises:
            DataError: a file cannot be used.
        """
        self._files = files
        self._options = options
        # Before the rows are found: a file that changes while they are is noticed.
        self._looks = [file.look() for file in files]
        self._parts = [open_rows(file, options.text_rows) for file in files]
        self._ends = list(accumulate(len(part) for part in self._parts))
        self._length = self._ends[-1] if options.limit is None else min(options.limit, self._ends[-1])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Row | Record:
        if not 0 <= index < self._length:
            raise IndexError(index)
        part = bisect_right(self._ends, index)
        row = self._parts[part][index - (self._ends[part - 1] if part else 0)]
        return rename(row, self._options.columns) if isinstance(row, Row) else row

    def fingerprint(self) -> str:
        """The same for the same contents of the files, in this order, with the same options."""
        return fingerprint(self._files, self._looks, self._options)


def fingerprint(files: Sequence[DataFile], looks: Sequence[LocalFile], options: FilesOptions) -> str:
    """A name for the rows of files.

    Args:
        looks: the files as they were found.
    Raises:
        DataError: one of them changed since.
    """
    contents = [(file.type, file.compression, look.content_hash()) for file, look in zip(files, looks, strict=True)]
    text = json.dumps([contents, asdict(options)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
