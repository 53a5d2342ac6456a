"""What every formatter promises: rows to records and back, and an honest score."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import pytest

from llmkit.data.contract import Formatter
from llmkit.errors import DataError
from llmkit.testing.front import FrontContract
from llmkit.types import Record, Role, Row, Source

FOREIGN = ({"temperature_celsius": 21.5, "station": "harbour"}, {"temperature_celsius": 19.0, "station": "hill"})


class FormatterContract(FrontContract):
    """Subclass it, set `name` and `rows`.

    Attributes:
        rows: raw rows of the format, in as many variants as it has.
        bad_rows: rows that it must refuse, such as one with a missing column or a number where text belongs.
    """

    kind = "formatters"
    rows: ClassVar[Sequence[Mapping[str, Any]]] = ()
    bad_rows: ClassVar[Sequence[Mapping[str, Any]]] = ()

    def build(self) -> Formatter:
        """The formatter to test."""
        return self.plugin().build(self.config())

    def source_rows(self) -> list[Row]:
        """`rows`, each with a place."""
        assert self.rows, "set `rows` to examples of the format"
        return _placed(self.rows)

    def test_scores_lie_between_0_and_1(self) -> None:
        formatter = self.build()
        for rows in (self.source_rows(), _placed(FOREIGN), []):
            assert 0 <= formatter.score(rows) <= 1

    def test_its_own_rows_score_higher_than_foreign_ones(self) -> None:
        formatter = self.build()
        assert formatter.score(self.source_rows()) > formatter.score(_placed(FOREIGN))

    def test_rows_become_records_that_know_their_place(self) -> None:
        formatter = self.build()
        for row in self.source_rows():
            record = formatter.to_record(row)
            assert isinstance(record, Record)
            assert record.source == row.source
            assert record.messages, f"{row.source}: the record has no messages"
            for message in (*record.messages, *record.chosen, *record.rejected):
                assert message.role in get_args(Role)
                assert isinstance(message.content, str | tuple)

    def test_a_record_written_and_read_again_is_the_same(self) -> None:
        formatter = self.build()
        for row in self.source_rows():
            record = formatter.to_record(row)
            written = formatter.from_record(record)
            assert formatter.to_record(Row(written, row.source)) == record

    def test_reading_a_row_leaves_it_as_it_is(self) -> None:
        formatter = self.build()
        before = repr(self.source_rows())
        rows = self.source_rows()
        for row in rows:
            formatter.to_record(row)
        assert repr(rows) == before

    def test_foreign_and_bad_rows_are_refused_with_their_place(self) -> None:
        formatter = self.build()
        for row in _placed([*FOREIGN, *self.bad_rows]):
            with pytest.raises(DataError, match=re.escape(str(row.source))):
                formatter.to_record(row)


def _placed(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [Row(values, Source("rows.jsonl", line)) for line, values in enumerate(rows, start=1)]
