"""Rows to what is trained, in this process or in several."""

import pickle
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from llmkit.data.contract import Encoded, Encoder, Formatter, to_record
from llmkit.data.preparing.encode_process import EncodeProcess
from llmkit.errors import ConfigError, DataError
from llmkit.types import Record, Row

T = TypeVar("T")
Readable = Row | Record | DataError
"""A row, or the error of one that could not be read."""
CHUNKS_AHEAD = 2
"""Chunks that a process is given before its first result is fetched: one to work on and one to go on with."""


def encode_rows(
    rows: Iterable[Readable], formatter: Formatter, encoder: Encoder[T], *, num_workers: int, chunk_rows: int = 64
) -> Generator[Encoded[T] | DataError, None, None]:
    """What becomes of each row, in the order of the rows.

    Rows are read when their results are asked for, at most `CHUNKS_AHEAD` chunks per process ahead. Closing the
    generator ends the processes.

    Args:
        rows: rows, records, and errors of rows that could not be read, which pass through in their place.
        formatter: reads the rows that are not records yet.
        encoder: makes of records what is trained.
        num_workers: processes that do it; 0 does it in this one.
        chunk_rows: rows that are encoded together.
    Raises:
        ConfigError: formatter, encoder or a row cannot be sent to another process.
        TrainingError: a process ended before its work did.
    """
    chunks = _in_chunks(rows, chunk_rows)
    if num_workers:
        yield from _encode_elsewhere(chunks, formatter, encoder, num_workers)
    else:
        for chunk in chunks:
            yield from encode_chunk(chunk, formatter, encoder)


def encode_chunk(rows: Sequence[Readable], formatter: Formatter, encoder: Encoder[T]) -> "list[Encoded[T] | DataError]":
    """What becomes of some rows, which are encoded together."""
    read = [_to_record(row, formatter) for row in rows]
    records = [record for record in read if isinstance(record, Record)]
    results = list(encoder(records)) if records else []
    assert len(results) == len(records), f"{len(results)} results for {len(records)} records from {encoder!r}"
    remaining = iter(results)
    return [next(remaining) if isinstance(record, Record) else record for record in read]


def _to_record(row: Readable, formatter: Formatter) -> Record | DataError:
    if isinstance(row, DataError):
        return row
    try:
        return to_record(row, formatter)
    except DataError as error:
        return error


def _in_chunks(rows: Iterable[Readable], chunk_rows: int) -> Iterator[list[Readable]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, chunk_rows)):
        yield chunk


def _encode_elsewhere(
    chunks: Iterable[Sequence[Readable]], formatter: Formatter, encoder: Encoder[T], num_workers: int
) -> Iterator[Encoded[T] | DataError]:
    """Chunk c goes to process c modulo `num_workers`, and results are fetched in the same order."""
    tools = _pickled((formatter, encoder), f"formatter {type(formatter).__name__} or encoder {type(encoder).__name__}")
    processes: list[EncodeProcess] = []
    waiting: deque[EncodeProcess] = deque()
    try:
        for number, chunk in enumerate(chunks):
            if len(processes) < num_workers:
                processes.append(EncodeProcess(encode_chunk, tools))
            process = processes[number % num_workers]
            process.send(_pickled(chunk, "rows"))
            waiting.append(process)
            if len(waiting) == CHUNKS_AHEAD * num_workers:
                yield from waiting.popleft().receive()
        while waiting:
            yield from waiting.popleft().receive()
    finally:
        for process in processes:
            process.close()


def _pickled(value: Any, what: str) -> bytes:
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    # What pickle raises for an object that it cannot hold depends on the object.
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"data.num_workers: the {what} cannot be sent to another process ({error}); "
            "tokenize in this one: --set data.num_workers=0"
        ) from error
