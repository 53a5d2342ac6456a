"""Rows of tables and streams of Hugging Face's `datasets`."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import datasets
import pyarrow
from datasets.exceptions import DatasetsError

from llmkit.errors import DataError, SourceError
from llmkit.types import Row, Source

PAGE_ROWS = 64
"""Rows that become Python objects together while rows are read in order."""
LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, DatasetsError, pyarrow.ArrowException)
"""What `datasets` raises for data that it cannot load."""
MEDIA = (datasets.Image, datasets.Audio, datasets.Video, datasets.Pdf, datasets.Nifti)


class HubRows:
    """Rows of one split. A row's place is `name[split]:row`, rows counted from 1.

    Values are as `datasets` gives them, but pictures, sound and the like stay `{"bytes", "path"}`. Arrow gives the
    structs of a column the keys of all others, with null where a row did not have the key; these nulls stay.
    """

    def __init__(self, table: datasets.Dataset, name: str, split: str, limit: int | None) -> None:
        """
        Raises:
            DataError: there are no rows.
        """
        if not len(table):
            raise DataError(f"{name}[{split}]: the split has no rows")
        self._table = table.with_format("arrow")
        self._features = undecoded(table.features)
        self._place = f"{name}[{split}]"
        self._length = len(table) if limit is None else min(limit, len(table))
        self._first = 0
        self._page: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self._length:
            raise IndexError(index)
        if not self._first <= index < self._first + len(self._page):
            # Rows in random order would pay for a whole page each.
            count = PAGE_ROWS if index == self._first + len(self._page) else 1
            rows: Any = self._table[index : min(index + count, self._length)]
            self._page = [self._features.decode_example(row) for row in rows.to_pylist()]
            self._first = index
        return Row(self._page[index - self._first], Source(self._place, index + 1))

    def fingerprint(self) -> str:
        """The same for the same table: `datasets` names each by what it was made of."""
        return digest([self._table._fingerprint, self._length])


class HubStream:
    """Rows of one split, from front to back, of a source that need not fit on this machine."""

    def __init__(
        self,
        begin: Callable[[], datasets.IterableDataset],
        place: str,
        limit: int | None,
        mark: Callable[[], str],
        fingerprint: Callable[[], str],
    ) -> None:
        """
        Args:
            begin: gives the rows; each time from the first one, for `datasets` keeps a pass's state in the object.
            place: `name[split]`, for messages.
            mark: a name of the source that is quick to work out.
            fingerprint: a name of all it contains.
        """
        self.begin = begin
        self.place = place
        self.limit = limit
        self.mark = mark
        self.fingerprint = fingerprint

    def open(self, position: Any = None) -> "HubReader":
        """Begin a pass, or go on where another one stood.

        Raises:
            DataError: the source is not the one that the position belongs to.
        """
        mark = self.mark()
        if position is not None and position["mark"] != mark:
            raise DataError(
                f"{self.place}: the data set changed since the position to go on from was saved; restore it, or start "
                "a new run"
            )
        return HubReader(self, position, mark)


class HubReader:
    """A pass over the rows of a stream."""

    def __init__(self, stream: HubStream, position: Any, mark: str) -> None:
        self._stream = stream
        self._mark = mark
        self._source = stream.begin()
        features = self._source.features
        if features is not None and has_media(features):
            self._source = self._source.decode(False)
        self._num_rows = 0
        if position is not None:
            self._num_rows = position["num_rows"]
            if position["state"] is not None:
                self._source.load_state_dict(position["state"])
        self._rows: Iterator[Any] = iter(self._source)
        self._fault: SourceError | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        """The next row."""
        if self._fault is not None:
            raise self._fault
        if self._num_rows == self._stream.limit:
            raise StopIteration
        try:
            values = next(self._rows)
        except LOADING_ERRORS as error:
            self._fault = SourceError(f"{self._stream.place}:{self._num_rows + 1}: cannot be read: {reason(error)}")
            raise self._fault from error
        self._num_rows += 1
        return Row(values, Source(self._stream.place, self._num_rows))

    @property
    def position(self) -> dict[str, Any]:
        """The number of rows before, and where `datasets` stands."""
        state = self._source.state_dict() if self._num_rows else None
        return {"num_rows": self._num_rows, "state": state, "mark": self._mark}

    def close(self) -> None:
        """Let go of the source."""
        close = getattr(self._rows, "close", None)
        if close is not None:
            close()
        self._rows = iter(())


def undecoded(features: datasets.Features) -> datasets.Features:
    """The same columns, with media left as they are stored."""
    return datasets.Features({name: _undecoded(feature) for name, feature in features.items()})


def has_media(features: Mapping[str, Any]) -> bool:
    """Whether a column holds pictures, sound or the like, at any depth."""
    return undecoded(datasets.Features(features)) != features


def _undecoded(feature: Any) -> Any:
    match feature:
        case dict():
            return {name: _undecoded(inner) for name, inner in feature.items()}
        case list():
            return [_undecoded(inner) for inner in feature]
        case datasets.LargeList() | datasets.List():
            return replace(feature, feature=_undecoded(feature.feature))
        case _ if isinstance(feature, MEDIA):
            return replace(feature, decode=False)
    return feature


def digest(parts: object) -> str:
    """A short name of what JSON can hold."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def reason(error: BaseException) -> str:
    """The first line of what went wrong, of the deepest cause that `datasets` names."""
    while isinstance(error, DatasetsError) and error.__cause__ is not None:
        error = error.__cause__
    if "Config name is missing" in str(error):
        return f"name a subset: --set dataset.subset=NAME, one of {str(error).partition('configs:')[2].splitlines()[0]}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
