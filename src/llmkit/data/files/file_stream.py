"""The rows of several files as a stream."""

from collections.abc import Sequence
from typing import Any, Self

from llmkit.data.contract import RowReader
from llmkit.data.files.columns import rename
from llmkit.data.files.file_rows import FilesOptions, fingerprint
from llmkit.data.files.file_types import DataFile, open_reader
from llmkit.data.files.local_file import LocalFile
from llmkit.errors import DataError, SourceError
from llmkit.types import Record, Row


class FileStream:
    """Rows of files, one file after the other, from front to back. A packed file is unpacked while it is read."""

    def __init__(self, files: Sequence[DataFile], options: FilesOptions) -> None:
        """Look at every file, and at the first row of the first one.

        Raises:
            DataError: a file is missing, or is not what its name says.
        """
        self.files = files
        self.options = options
        self.looks = [file.look() for file in files]
        open_reader(files[0], self.looks[0], options.text_rows).close()

    def open(self, position: Any = None) -> "FileReader":
        """Begin a pass, or go on where another one stood.

        A position has the file by its number and name, and by a mark of its size and of both its ends: enough to see
        that a file was written anew or added to, and the same for a copy of the files.

        Raises:
            DataError: a file cannot be read, or is not the one that the position belongs to.
        """
        return FileReader(self, position)

    def fingerprint(self) -> str:
        """The same for the same contents of the files, in this order, with the same options; reads all of them."""
        return fingerprint(self.files, self.looks, self.options)


class FileReader:
    """A pass over the rows of a stream of files.

    The fault of a row is a `DataError`, and the row behind it follows. A file that breaks off, or that changes while it
    is read, is a `SourceError`: what it would have held is not left out silently.
    """

    def __init__(self, stream: FileStream, position: Any) -> None:
        self._stream = stream
        self._number = 0
        self._num_rows = 0
        self._reader: RowReader | None = None
        if position is not None:
            self._go_to(position)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row | Record:
        """The next row."""
        options = self._stream.options
        while self._number < len(self._stream.files) and self._num_rows != options.limit:
            try:
                row = next(self._of_file())
            except StopIteration:
                self._leave_file()
                continue
            except DataError:
                self._num_rows += 1
                raise
            self._num_rows += 1
            return rename(row, options.columns) if isinstance(row, Row) else row
        raise StopIteration

    @property
    def position(self) -> dict[str, Any]:
        """The file, the place in it, and the number of rows before."""
        if self._number == len(self._stream.files):
            return {"file": self._number, "num_rows": self._num_rows}
        file = self._look()
        return {
            "file": self._number,
            "name": self._stream.files[self._number].path.name,
            "mark": file.mark(),
            "place": self._reader.position if self._reader is not None else None,
            "num_rows": self._num_rows,
        }

    def close(self) -> None:
        """Let go of the file that is being read."""
        if self._reader is not None:
            self._reader.close()

    def _look(self) -> LocalFile:
        return self._stream.looks[self._number]

    def _of_file(self) -> RowReader:
        """The rows of the file where the pass stands."""
        if self._reader is None:
            try:
                self._reader = self._opened(self._number, None)
            except DataError as error:
                raise SourceError(str(error)) from None
        return self._reader

    def _leave_file(self) -> None:
        try:
            self._look().check()
        except DataError as error:
            raise SourceError(str(error)) from None
        self.close()
        self._reader = None
        self._number += 1

    def _opened(self, number: int, place: Any) -> RowReader:
        return open_reader(
            self._stream.files[number], self._stream.looks[number], self._stream.options.text_rows, place
        )

    def _go_to(self, position: Any) -> None:
        self._number, self._num_rows = position["file"], position["num_rows"]
        files = self._stream.files
        if self._number == len(files) and "name" not in position:
            return
        if self._number >= len(files) or files[self._number].path.name != position["name"]:
            there = files[self._number].path if self._number < len(files) else f"there are {len(files)} files"
            raise DataError(
                f"dataset.path: the position to go on from is in file {self._number + 1}, '{position.get('name')}', "
                f"but {there}; use the same files, or start a new run"
            )
        if self._look().mark() != position["mark"]:
            raise DataError(
                f"{self._look().name}: the file changed since the position to go on from was saved; restore it, or "
                "start a new run"
            )
        if position["place"] is not None:
            self._reader = self._opened(self._number, position["place"])
