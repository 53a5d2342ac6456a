"""A data set tokenized before training: memory-mapped, and kept for the next run with the same rows and options."""

import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from operator import index as as_index
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from llmkit.cache import cached_directory, remove_unused
from llmkit.config.schema import DataConfig
from llmkit.data.contract import Dataset, Encoder, Formatter, choose_formatter
from llmkit.data.preparing.cache_key import cache_key
from llmkit.data.preparing.encode_pool import Readable, encode_rows
from llmkit.data.preparing.prepared_files import LAYOUT_VERSION, PreparedFiles, PreparedWriter, is_whole
from llmkit.data.preparing.progress import with_progress
from llmkit.data.row_errors import RowErrors
from llmkit.errors import DataError, SourceError, TrainingError
from llmkit.formatting import format_number
from llmkit.types import PreferencePair, Sample, Source

T = TypeVar("T")
GROUP = "data"
UNUSED_DAYS = 30
"""Entries that nobody asked for in so many days make room when a new one is made."""


class Prepared(Generic[T]):
    """N items of R rows, samples or pairs, read from files when they are asked for.

    Attributes:
        lengths: [N] int64, tokens of each item; of a pair, of both sides.
        row_starts: [R + 1] int64; row r gave the items `[row_starts[r], row_starts[r + 1])`, none when it was left out.
        counts: what became of the rows.
        faults: errors of the rows that were left out as faulty.
    """

    def __init__(self, directory: Path) -> None:
        """Open the files that `prepare` wrote."""
        self._files = files = PreparedFiles(directory)
        self._sides = 2 if files.header.is_pairs else 1
        self.lengths = files.tokens.lengths.reshape(-1, self._sides).sum(1)
        self.row_starts = files.row_starts
        self.counts = files.header.counts
        self.faults = files.header.faults

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> T:
        """Item `index`, from 0; negative numbers do not count from the end."""
        if not 0 <= as_index(index) < len(self):
            raise IndexError(index)
        if self._files.header.is_pairs:
            return cast(T, PreferencePair(self._sample(2 * index), self._sample(2 * index + 1)))
        return cast(T, self._sample(index))

    def _sample(self, sequence: int) -> Sample:
        files = self._files
        source = Source(files.header.path_names[int(files.paths[sequence])], int(files.lines[sequence]))
        return Sample(files.tokens.ids(sequence).tolist(), files.tokens.weights(sequence).tolist(), source)


def prepare(
    dataset: Dataset,
    formatter: Formatter,
    encoder: Encoder[T],
    config: DataConfig,
    *,
    errors: RowErrors | None = None,
    report: Path | None = None,
) -> Prepared[T]:
    """Every row of a data set, encoded once.

    The cache keeps the result by everything that it depends on; with `config.cache` off, or rows or a formatter that
    cannot be told from others, it lies in a temporary directory and goes with the object. Several processes may ask for
    the same at once: one encodes and the others wait.

    Args:
        dataset: the rows.
        formatter: reads them; one that chooses by the rows does so now.
        encoder: makes samples or pairs of them.
        config: faulty rows, processes, cache.
        errors: what happens to faulty rows, in place of what `config` says; told of those in the cache too.
        report: JSON Lines file for faulty rows that are left out, when there is no `errors`.
    Raises:
        DataError: a row cannot be used, and such rows are not skipped, or too many were.
        SourceError: what the rows are read from broke off or changed.
        TrainingError: the cache, or the temporary directory, cannot be written.
    """
    formatter = choose_formatter(formatter, dataset)
    errors = errors or RowErrors(config.on_error, config.max_skipped, report)
    was_made = False

    def make(directory: Path) -> None:
        nonlocal was_made
        was_made = True
        encoded = encode_rows(_rows(dataset, range(len(dataset))), formatter, encoder, num_workers=config.num_workers)
        with closing(encoded), closing(with_progress(encoded, len(dataset), "Tokenizing rows")) as results:
            _write(directory, results, errors)

    key = _key(dataset, formatter, encoder) if config.cache else None
    if key is None:
        return _in_temporary_directory(make)
    directory = cached_directory(key, make, group=GROUP, is_whole=is_whole)
    prepared: Prepared[T] = Prepared(directory)
    if was_made:
        remove_unused(GROUP, UNUSED_DAYS)
        return prepared
    print(f"Using {format_number(len(dataset))} tokenized rows from the cache", file=sys.stderr, flush=True)
    for fault in prepared.faults:
        errors.handle(DataError(fault))
    return prepared


def _key(dataset: Dataset, formatter: Formatter, encoder: Encoder[Any]) -> str | None:
    """Name of the entry; None when it cannot have one."""
    ends = sorted({0, len(dataset) - 1}) if len(dataset) else []
    # Of a copied file, the entry would name the places in the original.
    paths = [row.source.path for row in _rows(dataset, ends) if not isinstance(row, DataError)]
    return cache_key(dataset, formatter, encoder, [LAYOUT_VERSION, *paths])


def _rows(dataset: Dataset, numbers: Iterable[int]) -> Iterator[Readable]:
    """Rows of a data set, with the error of one that cannot be read in its place."""
    for index in numbers:
        try:
            yield dataset[index]
        except DataError as error:
            yield error
        except OSError as error:
            # Left as it is, it would be taken for one of writing the cache.
            raise SourceError(f"row {index + 1} of the data set cannot be read: {error}") from error


def _write(directory: Path, results: Iterator[Any], errors: RowErrors) -> None:
    writer = PreparedWriter(directory)
    try:
        for result in results:
            if isinstance(result, DataError):
                errors.handle(result)
                writer.add_fault(str(result))
            else:
                writer.add(result)
        writer.finish()
    finally:
        writer.close()


def _in_temporary_directory(make: Callable[[Path], None]) -> Prepared[Any]:
    """What `make` writes, in a directory that is removed with the object, at the end of the process at the latest."""
    directory = Path(tempfile.mkdtemp(prefix="llmkit-data-"))
    try:
        make(directory)
        prepared: Prepared[Any] = Prepared(directory)
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise TrainingError(
                f"{directory}: tokenized rows cannot be written: {error.strerror or error}; set TMPDIR to another "
                "directory"
            ) from error
        raise
    weakref.finalize(prepared, shutil.rmtree, directory, ignore_errors=True)
    return prepared
