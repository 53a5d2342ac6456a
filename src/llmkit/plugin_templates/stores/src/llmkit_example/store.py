"""The back of the store."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from llmkit.data.stores.contract import Tokens
from llmkit.disk import writing
from llmkit.errors import DataError
from llmkit.types import Sample, Source

END = "end"
"""The last line, by which a file is known to be whole."""


class NumberLines:
    """The store: `id:weight` for each token."""

    suffixes = (".numbers",)

    def __init__(self, separator: str) -> None:
        self._separator = separator

    def open(self, path: Path) -> "Lines":
        """Read the file; a store for large files finds its lines here and reads them later."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
        *lines, last = text.splitlines() or [""]
        if last != END:
            raise DataError(f"{path}: no '{END}' in the last line; the file was cut off, write it again")
        return Lines(path, lines, self._separator)

    def write(self, path: Path, samples: Iterable[Sample]) -> None:
        """Write under another name first, so that a whole file or none appears."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with writing(path), partial.open("w", encoding="utf-8") as file:
                for sample in samples:
                    pairs = zip(sample.token_ids, sample.loss_weights, strict=True)
                    file.write(self._separator.join(f"{token}:{weight}" for token, weight in pairs) + "\n")
                file.write(END)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


class Lines:
    """The sequences of a file."""

    def __init__(self, path: Path, lines: list[str], separator: str) -> None:
        self.files = [path]
        self._tokens = [self._parse(line, number, separator) for number, line in enumerate(lines)]
        self.lengths = np.array([len(tokens.ids) for tokens in self._tokens], np.int64)

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, index: int, start: int = 0, end: int | None = None) -> Tokens:
        """Tokens of a line."""
        ids, weights = self._tokens[index]
        assert weights is not None
        return Tokens(ids[start:end], weights[start:end])

    def source(self, index: int) -> Source:
        """The file and the line, from 1."""
        return Source(str(self.files[0]), index + 1)

    def _parse(self, line: str, number: int, separator: str) -> Tokens:
        try:
            pairs = [word.split(":") for word in line.split(separator)] if line else []
            return Tokens(
                np.array([int(token) for token, _ in pairs], np.int64),
                np.array([float(weight) for _, weight in pairs], np.float64),
            )
        except ValueError as error:
            raise DataError(f"{self.source(number)}: must be numbers like 17:1.0: {error}") from None
