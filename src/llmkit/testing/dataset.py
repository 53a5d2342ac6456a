"""What every data set promises: rows that can be read again from any position."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from llmkit.data.contract import Dataset
from llmkit.errors import LLMKitError
from llmkit.testing.front import FrontContract
from llmkit.types import Row

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
            row = dataset[index]
            assert isinstance(row, Row)
            assert row.values, f"row {index} is empty"
            assert all(isinstance(column, str) for column in row.values), f"row {index} has a column that is not a str"
            assert row.source.path, f"row {index} does not say where it comes from"
            assert row.source.line >= 1, f"row {index} counts its line from {row.source.line}; lines count from 1"

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

    def test_the_last_row_can_be_read(self) -> None:
        dataset = self.build()
        assert isinstance(dataset[len(dataset) - 1], Row)

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
