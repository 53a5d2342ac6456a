"""What a store promises: token sequences kept in files, read in any order and written as a whole."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from llmkit.types import Sample, Source

if TYPE_CHECKING:
    import numpy as np


class Tokens(NamedTuple):
    """Tokens of a sequence, or of a part of it.

    Attributes:
        ids: [T] integers.
        loss_weights: [T] floats; None when the store says nothing of them, and every token counts alike.
    """

    ids: "np.ndarray"
    loss_weights: "np.ndarray | None"


class TokenSequences(Protocol):
    """The sequences of a file, read when they are asked for."""

    @property
    def files(self) -> Sequence[Path]:
        """Every file that they are read from; their contents decide the sequences."""
        ...

    @property
    def lengths(self) -> "np.ndarray":
        """[N] int64, tokens of each sequence.

        Raises:
            DataError: a sequence cannot be read; names its place.
        """
        ...

    def __len__(self) -> int:
        """Number of sequences."""
        ...

    def read(self, index: int, start: int = 0, end: int | None = None) -> Tokens:
        """Tokens `[start, end)` of sequence `index`, counted from 0; `end` None is the end of the sequence.

        Raises:
            DataError: they cannot be used: an id that no vocabulary has, weights of another number; names the place.
        """
        ...

    def source(self, index: int) -> Source:
        """Where a sequence is: its file, and its line or number from 1."""
        ...


class Store(Protocol):
    """A file format for token sequences. `build(config) -> Store` makes one."""

    @property
    def suffixes(self) -> Sequence[str]:
        """Ends of the names of its files, with the dot."""
        ...

    def open(self, path: Path) -> TokenSequences:
        """Open one file.

        Raises:
            DataError: it is not there, is damaged, or has another format.
        """
        ...

    def write(self, path: Path, samples: Iterable[Sample]) -> None:
        """Write one file; it appears as a whole or not at all, and memory does not grow with the samples.

        Raises:
            TrainingError: the disk is full or the file cannot be written.
        """
        ...
