"""Every row of a data set or stream, also the error of one that cannot be read, for those who look and do not train."""

from collections.abc import Iterator

from llmkit.data.contract import Dataset, Sized, Stream
from llmkit.errors import DataError
from llmkit.types import Record, Row


def every_row(data: Dataset | Stream, limit: int | None = None) -> Iterator[Row | Record | DataError]:
    """The first `limit` rows, or all; a row that cannot be read is its error."""
    if isinstance(data, Sized):
        for index in range(len(data) if limit is None else min(limit, len(data))):
            yield row_at(data, index)
        return
    reader = data.open()
    try:
        count = 0
        while limit is None or count < limit:
            count += 1
            try:
                yield next(reader)
            except DataError as error:
                yield error
            except StopIteration:
                return
    finally:
        reader.close()


def row_at(data: Dataset, index: int) -> Row | Record | DataError:
    """Row `index`, from 0, or the error of one that cannot be read."""
    try:
        return data[index]
    except DataError as error:
        return error
