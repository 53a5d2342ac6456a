"""Rows into files of every type, batch by batch."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.convert.datasets.tables import Values, tables_of, write_tables
from llmkit.data.files.file_types import SUFFIXES
from llmkit.errors import ConfigError, DataError
from llmkit.types import Record, Sample

Pass = Callable[[], Iterable[Values]]
"""Gives the rows once more, from the first one."""
STORES = {".bin": "memmap", ".h5": "hdf5", ".hdf5": "hdf5"}
"""Token stores with names of their own; those of JSON Lines and Parquet are files of rows."""
WRITABLE = ("jsonl", "json", "csv", "tsv", "parquet", "arrow", "memmap", "hdf5")


def type_of(path: Path) -> str:
    """What a file is by the end of its name.

    Raises:
        ConfigError: the name does not say, or nothing writes that.
    """
    found = STORES.get(path.suffix.lower()) or SUFFIXES.get(path.suffix.lower())
    if found not in WRITABLE:
        known = ", ".join(suffix for suffix, kind in {**SUFFIXES, **STORES}.items() if kind in WRITABLE)
        raise ConfigError(f"{path}: its name does not say what to write; end it in one of {known}")
    return found


def write_rows(path: Path, file_type: str, rows: Pass) -> int:
    """Write a file; returns how many rows it has.

    Args:
        path: to write.
        file_type: one of `WRITABLE`, but no store.
        rows: read once, or twice where the columns have to be known before.

    Raises:
        DataError: the type cannot hold a value; names the column.
    """
    match file_type:
        case "jsonl":
            return _write_json(path, rows(), "", "\n", "\n")
        case "json":
            return _write_json(path, rows(), "[\n", ",\n", "\n]\n")
        case "csv" | "tsv":
            return _write_csv(path, rows, "," if file_type == "csv" else "\t")
    return write_tables(path, file_type, partial(tables_of, rows))


def write_store(path: Path, store: str, samples: Iterable[Sample]) -> int:
    """Write token sequences; returns how many."""
    count = 0

    def counted() -> Iterator[Sample]:
        nonlocal count
        for sample in samples:
            count += 1
            yield sample

    plugin = plugins.load("stores", store)
    plugin.build(plugin.Config()).write(path, counted())
    return count


def sample_of(record: Record) -> Sample:
    """The tokens of a record.

    Raises:
        DataError: it was not tokenized.
    """
    if record.tokens is None:
        raise DataError(f"{record.source}: a token store holds token ids, and this row has none; tokenize it before")
    return record.tokens


def _write_json(path: Path, rows: Iterable[Values], start: str, between: str, end: str) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(start)
        for count, row in enumerate(rows, start=1):
            if count > 1:
                file.write(between)
            file.write(as_json(row))
        file.write(end)
    return count


def as_json(value: Any) -> str:
    """One line of JSON.

    Raises:
        DataError: a value has no form in JSON.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, default=_written, allow_nan=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"a value cannot be written as JSON: {error}") from None
    return text


def _written(value: Any) -> Any:
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Mapping | tuple):
        return dict(value) if isinstance(value, Mapping) else list(value)
    raise TypeError(f"{type(value).__name__} has no form in it")


def _write_csv(path: Path, rows: Pass, delimiter: str) -> int:
    columns: dict[str, None] = {}
    for row in rows():
        columns.update(dict.fromkeys(row))
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(columns)
        for row in rows():
            count += 1
            writer.writerow([_cell(row.get(column)) for column in columns])
    return count


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else as_json(value)
