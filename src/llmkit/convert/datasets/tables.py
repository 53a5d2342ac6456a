"""Rows as tables of columns, and tables into Parquet and Arrow files."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import Any

from llmkit.errors import DataError

Values = Mapping[str, Any]
Tables = Callable[[Any], Iterator[Any]]
"""Gives the rows as tables of pyarrow, once more from the first one. With None each has the columns that all rows up to
its last one need; with a schema each has that one."""
TYPES = ("parquet", "arrow")
BATCH_ROWS = 1000


def write_tables(path: Path, file_type: str, tables: Tables) -> int:
    """Write with the columns that the first table has; where later ones need more, once again with those of all.

    Args:
        path: to write.
        file_type: of `TYPES`.
        tables: read once, or twice where columns come late.
    Returns: how many rows there are.
    Raises:
        DataError: there are none, or they do not fit one table.
    """
    growing = tables(None)
    first = next(growing, None)
    if first is None:
        raise DataError(f"{path.name}: there are no rows, so there are no columns to write")
    count, schema = _write(path, file_type, first.schema, chain([first], growing))
    if file_type == "parquet" and (column := _empty_objects(schema)):
        raise DataError(
            f"column '{column}': no object in it has a key, which Parquet cannot hold; write .arrow or .jsonl"
        )
    if schema != first.schema:
        _write(path, file_type, schema, tables(schema))
    return count


def _write(path: Path, file_type: str, schema: Any, tables: Iterable[Any]) -> tuple[int, Any]:
    """Write the tables that have a schema, if the type of file has a form for it.

    Returns: how many rows all tables have, and the schema of the last one.
    """
    count, last = 0, schema
    impossible = file_type == "parquet" and _empty_objects(schema)
    with nullcontext() if impossible else _opened(path, file_type, schema) as writer:
        for table in tables:
            count, last = count + table.num_rows, table.schema
            if writer is not None and last == schema:
                writer.write_table(table)
    return count, last


def tables_of(rows: Callable[[], Iterable[Values]], schema: Any) -> Iterator[Any]:
    """The rows as tables, batch by batch; see `Tables`.

    Raises:
        DataError: they do not fit one table.
    """
    widening = Widening(schema)
    iterator = iter(rows())
    while batch := list(islice(iterator, BATCH_ROWS)):
        yield widening.table(batch)


class Widening:
    """Makes tables whose columns are those of all rows that came.

    Attributes:
        schema: of the tables; None before the first one.
        is_fixed: whether rows must fit the schema as it is.
    """

    def __init__(self, schema: Any) -> None:
        """
        Args:
            schema: that all tables are to have; None finds out what they need.
        """
        self.schema = schema
        self.is_fixed = schema is not None

    def table(self, batch: Sequence[Values]) -> Any:
        """Some rows as a table.

        Raises:
            DataError: they do not fit one table, or not one with those before.
        """
        if self.is_fixed:
            return _table(batch, self.schema)
        table = _table(batch, None)
        if self.schema is None:
            self.schema = table.schema
        if table.schema == self.schema:
            return table
        self.schema = _unified(self.schema, table.schema)
        return _table(batch, self.schema)


def _opened(path: Path, file_type: str, schema: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetWriter(path, schema) if file_type == "parquet" else pa.ipc.new_file(str(path), schema)


def _empty_objects(schema: Any) -> str | None:
    """The first column with objects in it of which none has a key."""
    import pyarrow as pa

    def is_empty(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return not kind.num_fields or any(is_empty(field.type) for field in kind)
        return pa.types.is_list(kind) and is_empty(kind.value_type)

    return next((field.name for field in schema if is_empty(field.type)), None)


def _table(batch: Sequence[Values], schema: Any) -> Any:
    import pyarrow as pa

    columns = list(dict.fromkeys(key for row in batch for key in row)) if schema is None else schema.names
    try:
        arrays = {column: [row.get(column) for row in batch] for column in columns}
        return pa.table(arrays, schema=schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"the rows do not fit one table: {error}; write them as .jsonl") from None


def _unified(one: Any, other: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.unify_schemas([one, other], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"the rows do not fit one table: {error}; write them as .jsonl") from None
