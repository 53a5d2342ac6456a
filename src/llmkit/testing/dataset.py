"""What every data set promises: rows that can be read again from any position; and every stream: rows in order,
resumable behind any of them."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from llmkit.data.contract import Dataset, Fingerprinted, Stream
from llmkit.errors import DataError, LLMKitError
from llmkit.testing.front import FrontContract
from llmkit.types import Record, Row

NUM_ROWS = 20


class DatasetContract(FrontContract):
    """Subclass it, set `name`, and `options` if the data set needs any.

    Attributes:
        bad_options: options that the data set must refuse with a clear error, each with the rest of `options`.
    """

    kind = "datasets"
    bad_options: ClassVar[tuple[Mapping[str, Any], ...]] = ()

    def build(self) -> Dataset:
        """The data set to test."""
        return self.plugin().build(self.config())

    def test_rows_have_values_and_a_place(self) -> None:
        dataset = self.build()
        assert len(dataset) >= 1
        for index in range(min(len(dataset), NUM_ROWS)):
            _check_row(dataset[index], index)

    def test_rows_can_be_read_again_in_any_order(self) -> None:
        dataset = self.build()
        count = min(len(dataset), NUM_ROWS)
        forwards = [dataset[index] for index in range(count)]
        backwards = [dataset[index] for index in reversed(range(count))]
        assert forwards == backwards[::-1]

    def test_built_again_it_has_the_same_rows(self) -> None:
        first, second = self.build(), self.build()
        assert len(first) == len(second)
        assert [first[index] for index in range(min(len(first), NUM_ROWS))] == [
            second[index] for index in range(min(len(second), NUM_ROWS))
        ]

    def test_built_again_it_has_the_same_fingerprint(self) -> None:
        _check_fingerprints(self.build(), self.build())

    def test_the_last_row_can_be_read(self) -> None:
        dataset = self.build()
        assert isinstance(dataset[len(dataset) - 1], Row | Record)

    def test_there_is_no_row_after_the_last(self) -> None:
        dataset = self.build()
        with pytest.raises((IndexError, LLMKitError)):
            dataset[len(dataset)]

    def test_bad_options_are_refused_with_a_clear_error(self) -> None:
        plugin = self.plugin()
        for bad in self.bad_options:
            with pytest.raises((LLMKitError, ValueError)) as caught:
                plugin.build(plugin.Config(**{**self.options, **bad}))
            assert str(caught.value), f"the error for {bad} says nothing"


class StreamContract(FrontContract):
    """Subclass it, set `name`, and in `options` what makes `build` return a stream of at least two rows."""

    kind = "datasets"

    def build(self) -> Stream:
        """The stream to test."""
        return self.plugin().build(self.config())

    def dataset(self) -> Dataset | None:
        """The same rows as a data set; None when they come as a stream only."""
        return None

    def faulty(self) -> Stream | None:
        """A stream with one row that cannot be read, and rows behind it; None when a row cannot be faulty by itself."""
        return None

    def test_rows_have_values_and_a_place(self) -> None:
        rows = _rest(self.build())
        assert len(rows) >= 2, "two rows are needed to test positions"
        for index, row in enumerate(rows):
            _check_row(row, index)

    def test_every_pass_gives_the_same_rows(self) -> None:
        stream = self.build()
        rows = _rest(stream)
        assert _rest(stream) == rows
        assert _rest(self.build()) == rows

    def test_a_pass_gives_the_rows_of_the_data_set(self) -> None:
        dataset = self.dataset()
        if dataset is None:
            pytest.skip("the rows come as a stream only")
        assert _rest(self.build()) == [dataset[index] for index in range(len(dataset))]

    def test_from_every_position_the_rest_follows(self) -> None:
        rows = _rest(self.build())
        reader = self.build().open()
        for count in range(min(len(rows), NUM_ROWS) + 1):
            position = json.loads(json.dumps(reader.position))
            assert _rest(self.build(), position) == rows[count:], f"the position behind row {count} leads elsewhere"
            if count < len(rows):
                assert next(reader) == rows[count], "looking at the position moved the reader"
        reader.close()

    def test_a_position_goes_on_from_a_resumed_pass(self) -> None:
        rows = _rest(self.build())
        position = None
        for row in rows:
            reader = self.build().open(position)
            assert next(reader) == row
            position = json.loads(json.dumps(reader.position))
            reader.close()
        assert _rest(self.build(), position) == []

    def test_two_readers_are_strangers(self) -> None:
        stream = self.build()
        first, second = stream.open(), stream.open()
        rows = [next(first)]
        assert next(second) == rows[0]
        rows += first
        first.close()
        assert [rows[0], *second] == rows
        second.close()

    def test_the_end_is_the_end(self) -> None:
        reader = self.build().open()
        assert list(reader)
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(reader)
        reader.close()
        reader.close()

    def test_reading_goes_on_behind_a_faulty_row(self) -> None:
        stream = self.faulty()
        if stream is None:
            pytest.skip("no row of this stream can be faulty by itself")
        reader = stream.open()
        with pytest.raises(DataError, match=":"):
            list(reader)
        position = json.loads(json.dumps(reader.position))
        rest = list(reader)
        reader.close()
        assert rest, "nothing follows the faulty row"
        assert _rest(stream, position) == rest

    def test_built_again_it_has_the_same_fingerprint(self) -> None:
        _check_fingerprints(self.build(), self.build())


def _rest(stream: Stream, position: Any = None) -> list[Row | Record]:
    reader = stream.open(position)
    try:
        return list(reader)
    finally:
        reader.close()


def _check_row(row: Row | Record, index: int) -> None:
    assert isinstance(row, Row | Record)
    if isinstance(row, Row):
        assert row.values, f"row {index} is empty"
        assert all(isinstance(column, str) for column in row.values), f"row {index} has a column that is not a str"
    assert row.source.path, f"row {index} does not say where it comes from"
    assert row.source.line >= 1, f"row {index} counts its line from {row.source.line}; lines count from 1"


def _check_fingerprints(first: object, second: object) -> None:
    if isinstance(first, Fingerprinted) and isinstance(second, Fingerprinted):
        assert first.fingerprint(), "the fingerprint is empty"
        assert first.fingerprint() == second.fingerprint()
