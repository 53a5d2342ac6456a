"""What data-set and formatter plugins promise, and what becomes of their rows on the way to training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar, runtime_checkable

from llmkit.errors import DataError
from llmkit.types import Record, Row

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
Outcome = Literal["kept", "dropped", "truncated", "split", "untrained"]


class Dataset(Protocol):
    """Rows that can be read again from any position. `build(config) -> Dataset` makes one."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, index: int) -> Row | Record:
        """Row `index`, from 0; a data set that knows its own format gives records, which no formatter touches.

        Raises:
            IndexError: there is no such row; negative numbers do not count from the end.
            DataError: the row cannot be read; names file:line.
            SourceError: no row can be: the file changed or went away.
        """
        ...


class RowReader(Protocol):
    """A pass over the rows of a stream."""

    def __iter__(self) -> Self: ...

    def __next__(self) -> Row | Record:
        """The next row.

        Raises:
            DataError: it cannot be read; names file:line. The reader stands after it, so that reading can go on.
            SourceError: neither it nor what follows can be read; so again at each further call.
        """
        ...

    @property
    def position(self) -> Any:
        """Where it stands, after the row that came last, as JSON can hold it."""
        ...

    def close(self) -> None:
        """Let go of files; safe to call twice."""
        ...


class Stream(Protocol):
    """Rows that come one after another, from a source too large to index. `build(config) -> Stream` makes one."""

    def open(self, position: Any = None) -> RowReader:
        """Begin a pass.

        Args:
            position: what `RowReader.position` was, perhaps in another process; None begins with the first row.
        Raises:
            DataError: the source cannot be read, or is not the one that the position belongs to.
        """
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A data set or stream that can say what decides its rows. Rows of one that cannot are not kept in the cache."""

    def fingerprint(self) -> str:
        """The same for the same rows in the same order: made of the files' contents and the options."""
        ...


@runtime_checkable
class Ordered(Dataset, Protocol):
    """A data set that decides which rows an epoch has, and in which order, as a mixture of sources does."""

    @property
    def needs_lengths(self) -> bool:
        """Whether `order` must be given `lengths`."""
        ...

    def order(self, epoch: int, seed: int, shuffle: bool, lengths: "np.ndarray | None" = None) -> "np.ndarray":
        """Row numbers of one epoch; a row may come several times or not at all.

        Args:
            epoch: from 0; with `shuffle`, each has an order of its own.
            seed: fixes the orders, from 0.
            shuffle: off takes the rows of each source as they are.
            lengths: [N] tokens of each row, 0 for a row that is not trained; None when nobody counted them.
        Raises:
            DataError: no row has tokens, or the lengths are needed and missing.
        """
        ...


@runtime_checkable
class TakesLengths(Protocol):
    """A reader that balances its sources by tokens and so wants to know how long the rows were that it gave."""

    def report(self, num_tokens: Sequence[int]) -> None:
        """Tell the lengths of the rows given so far and not told yet, oldest first, as many as are known.

        A row that was left out has 0. Rows that are not told yet count as the mean of their source. What comes next
        depends on what was told when: tell it at fixed places, say after every block, and the order is the same in
        every run; take the `position` where everything was told, and it is the same after resuming too.
        """
        ...


@runtime_checkable
class Sized(Protocol):
    """Has a length: tells a data set from a stream."""

    def __len__(self) -> int: ...


class Formatter(Protocol):
    """Turns a foreign row into a record and back. `build(config) -> Formatter` makes one."""

    def score(self, rows: Sequence[Row]) -> float:
        """How well the first rows fit: 0 not at all, 1 beyond doubt."""
        ...

    def to_record(self, row: Row) -> Record:
        """Read one row.

        Raises:
            DataError: names the row's file:line, what is missing and the way out.
        """
        ...

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write a record as a row of this format.

        Raises:
            DataError: this format cannot hold what the record has.
        """
        ...


class Chooser(Protocol):
    """A formatter that has to see rows before it knows how to read them."""

    def choose(self, rows: Sequence[Row]) -> Formatter:
        """The formatter for these rows.

        Raises:
            DataError: none fits, or several do; names them and the option to set.
        """
        ...


@dataclass(frozen=True, slots=True)
class Encoded(Generic[T]):
    """What became of one record.

    Attributes:
        items: what is trained of it: one item; several when it was split; none when it was left out.
        outcome: `dropped` it is too long, `truncated` it was cut, `split` it was divided, `untrained` it would train no
            token and was left out.
        num_tokens: of the items.
        num_trained: those of them that carry loss.
    """

    items: tuple[T, ...]
    outcome: Outcome = "kept"
    num_tokens: int = 0
    num_trained: int = 0


class Encoder(Protocol[T]):
    """Makes of records what is trained. It can be pickled, for worker processes."""

    def __call__(self, records: Sequence[Record]) -> "Sequence[Encoded[T] | DataError]":
        """One result for each record, in order; the error of a record that cannot be used, with its place."""
        ...

    def fingerprint(self) -> str:
        """The same for encoders that give the same items: made of tokenizer, template and options."""
        ...


def choose_formatter(formatter: Formatter, data: Dataset | Stream, num_rows: int = 16) -> Formatter:
    """The formatter to read `data` with: itself, or the one that it chooses by the first `num_rows` rows."""
    choose = getattr(formatter, "choose", None)
    if choose is None:
        return formatter
    rows = [row for row in first_rows(data, num_rows) if isinstance(row, Row)]
    # Without rows there are only records, which need no formatter, or faulty ones, which are told when they are read.
    return choose(rows) if rows else formatter


def first_rows(data: Dataset | Stream, count: int) -> list[Row | Record | DataError]:
    """The first rows of a data set or stream, with the error of one that cannot be read in its place."""
    if isinstance(data, Sized):
        return [read_row(data, index) for index in range(min(count, len(data)))]
    rows: list[Row | Record | DataError] = []
    reader = data.open()
    try:
        while len(rows) < count:
            try:
                rows.append(next(reader))
            except DataError as error:
                rows.append(error)
            except StopIteration:
                break
    finally:
        reader.close()
    return rows


def read_row(data: Dataset, index: int) -> Row | Record | DataError:
    """A row, or the error of one that cannot be read."""
    try:
        return data[index]
    except DataError as error:
        return error


def to_record(row: Row | Record, formatter: Formatter) -> Record:
    """A row as a record; one that is a record already, as it is."""
    return row if isinstance(row, Record) else formatter.to_record(row)


def records(dataset: Dataset, formatter: Formatter) -> Iterator[Record]:
    """Every row of `dataset` as a record, in order."""
    formatter = choose_formatter(formatter, dataset)
    for index in range(len(dataset)):
        yield to_record(dataset[index], formatter)
