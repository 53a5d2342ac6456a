"""Some rows of a data set, as a data set."""

import hashlib

import numpy as np

from llmkit.data.contract import Dataset, Fingerprinted, Ordered
from llmkit.errors import DataError
from llmkit.types import Record, Row


class RowsView:
    """Chosen rows of a data set. It has a fingerprint when the data set has one."""

    def __init__(self, dataset: Dataset, rows: np.ndarray, choice: str) -> None:
        """
        Args:
            dataset: the rows to choose from.
            rows: [N] numbers of the chosen ones, ascending.
            choice: which they are, in words, for the fingerprint.
        """
        self._dataset = dataset
        self._rows = rows
        self._choice = choice
        if isinstance(dataset, Fingerprinted):
            # An attribute and not a method: a view of rows that nobody can identify must not seem `Fingerprinted`.
            self.fingerprint = self._fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row | Record:
        if not 0 <= index < len(self._rows):
            raise IndexError(index)
        return self._dataset[int(self._rows[index])]

    def _fingerprint(self) -> str:
        assert isinstance(self._dataset, Fingerprinted)
        return fingerprint_of(self._dataset.fingerprint(), self._choice)


class OrderedRowsView(RowsView):
    """Chosen rows of a data set that orders its epochs: they keep their places among one another."""

    @property
    def needs_lengths(self) -> bool:
        """Whether `order` must be given `lengths`."""
        assert isinstance(self._dataset, Ordered)
        return self._dataset.needs_lengths

    def order(self, epoch: int, seed: int, shuffle: bool, lengths: np.ndarray | None = None) -> np.ndarray:
        """The data set's own order of an epoch without the rows that are not chosen; see `contract.Ordered`."""
        assert isinstance(self._dataset, Ordered)
        inner_lengths = None
        if lengths is not None:
            inner_lengths = np.zeros(len(self._dataset), np.int64)
            inner_lengths[self._rows] = lengths
        number_here = np.full(len(self._dataset), -1)
        number_here[self._rows] = np.arange(len(self._rows))
        order = number_here[self._dataset.order(epoch, seed, shuffle, inner_lengths)]
        order = order[order >= 0]
        if not len(order):
            raise DataError(f"none of the {len(self._rows)} rows ({self._choice}) comes in epoch {epoch}")
        return order


def choose_rows(dataset: Dataset, rows: np.ndarray, choice: str) -> RowsView:
    """The rows of a data set with the numbers `rows`, in its own order of epochs if it has one; see `RowsView`."""
    return (OrderedRowsView if isinstance(dataset, Ordered) else RowsView)(dataset, rows, choice)


def fingerprint_of(*parts: str) -> str:
    """One fingerprint made of several texts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()
