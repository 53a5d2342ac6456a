"""What every formatter promises: rows to records and back, and an honest score."""

import json
import pickle
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import pytest

from llmkit.data.contract import Formatter
from llmkit.errors import DataError
from llmkit.testing.front import FrontContract
from llmkit.types import Message, Part, Record, Role, Row, Sample, Source, ToolCall

UNKNOWN_COLUMN = "no_format_knows_it"
FOREIGN = ({"temperature_celsius": 21.5, "station": "harbour"}, {"temperature_celsius": 19.0, "station": "hill"})
PLACE = Source("rows.jsonl", 1)
ASKED = (Message("user", "Say a."),)
UNUSUAL = (
    Record(ASKED, PLACE, chosen=(Message("assistant", "a"),), rejected=(Message("assistant", "b"),)),
    Record((*ASKED, Message("assistant", "a", weight=0.5)), PLACE),
    Record((*ASKED, Message("assistant", "", tool_calls=(ToolCall("say", '{"what": "a"}', "call-1"),))), PLACE),
    Record((*ASKED, Message("assistant", "a", reasoning="They want an a.")), PLACE),
    Record((Message("user", (Part("image", url="https://example.org/a.png"), Part(text="What is it?"))),), PLACE),
    Record((*ASKED, Message("assistant", "a")), PLACE, label=False),
    Record((*ASKED, Message("assistant", "a")), PLACE, tools='[{"type": "function", "function": {"name": "say"}}]'),
    Record((), PLACE, text="Some text."),
    Record((), PLACE, tokens=Sample([1, 2], [0.0, 1.0], PLACE)),
)
"""Records that most formats cannot hold."""


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
            forms = (bool(record.messages), record.text is not None, record.tokens is not None)
            assert sum(forms) == 1, f"{row.source}: the record must have messages, text or tokens, and one of them only"
            assert bool(record.chosen) == bool(record.rejected), f"{row.source}: half of a preference pair"
            for message in (*record.messages, *record.chosen, *record.rejected):
                assert message.role in get_args(Role)
                assert isinstance(message.content, str | tuple)
            if record.tools is not None:
                assert isinstance(json.loads(record.tools), list), f"{row.source}: tools are a list as JSON text"
            for call in (call for message in record.messages for call in message.tool_calls):
                json.loads(call.arguments)
            if record.tokens is not None:
                assert len(record.tokens.token_ids) == len(record.tokens.loss_weights)
                assert record.tokens.source == row.source

    def test_columns_that_it_does_not_know_reach_the_record_and_come_back(self) -> None:
        formatter = self.build()
        for row in self.source_rows():
            extended = Row({**row.values, UNKNOWN_COLUMN: {"level": 5}}, row.source)
            record = formatter.to_record(extended)
            assert record.extra.get(UNKNOWN_COLUMN) == {"level": 5}, "put columns that you do not use into `extra`"
            assert formatter.from_record(record).get(UNKNOWN_COLUMN) == {"level": 5}

    def test_it_reads_the_same_in_another_process(self) -> None:
        formatter = self.build()
        copy = pickle.loads(pickle.dumps(formatter))
        for row in self.source_rows():
            assert copy.to_record(row) == formatter.to_record(row)

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

    def test_a_record_that_it_cannot_hold_is_refused_with_its_place(self) -> None:
        formatter = self.build()
        for record in UNUSUAL:
            written, fault = _try_to_write(formatter, record)
            if written is None:
                assert str(record.source) in fault, "say which record it is: begin with its source"
            else:
                assert formatter.to_record(Row(written, record.source)) == record, "what is written must say it all"


def _try_to_write(formatter: Formatter, record: Record) -> tuple[Mapping[str, Any] | None, str]:
    """The record as a row, or the error that refuses it."""
    try:
        return formatter.from_record(record), ""
    except DataError as error:
        return None, str(error)


def _placed(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [Row(values, Source("rows.jsonl", line)) for line, values in enumerate(rows, start=1)]
