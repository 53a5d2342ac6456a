"""Mixtures of streams: shares, ends, and positions that go on exactly."""

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.contract import RowReader, TakesLengths
from llmkit.data.formatters import prompt_completion
from llmkit.data.mixtures import mixture_stream
from llmkit.data.mixtures.mixture_data import Mixture
from llmkit.data.mixtures.mixture_source import MixtureRules, MixtureSource
from llmkit.data.mixtures.mixture_stream import MixtureStream
from llmkit.data.stream_views import DatasetStream
from llmkit.errors import ConfigError, DataError, SourceError
from llmkit.types import Record, Row, Source

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

FORMATTER: Any = prompt_completion.build(prompt_completion.Config())
STOPPING = ("first_exhausted", "all_exhausted", "without_replacement")
RULES = [MixtureRules()] + [MixtureRules("interleave", by, stopping) for by in (False, True) for stopping in STOPPING]
SIZES = st.lists(st.tuples(st.integers(1, 8), st.floats(0.05, 20)), min_size=1, max_size=4)


@dataclass
class Rows:
    """Rows `name:1` to `name:N`; those of `faulty`, counted from 0, have nothing that the formatter can read."""

    name: str
    num_rows: int
    faulty: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Row | Record:
        values = {} if index in self.faulty else {"prompt": "p", "completion": "c"}
        return Row(values, Source(self.name, index + 1))


def source(data: Any, weight: float = 1.0, number: int = 0) -> MixtureSource[Any]:
    return MixtureSource(data, FORMATTER, weight, f"dataset.sources.{number}", "")


def rows_of(sizes: Sequence[tuple[int, float]]) -> list[MixtureSource[Any]]:
    return [source(Rows("abcd"[number], size), weight, number) for number, (size, weight) in enumerate(sizes)]


def streams_of(sources: Sequence[MixtureSource[Any]]) -> list[MixtureSource[Any]]:
    return [source(DatasetStream(one.data), one.weight, number) for number, one in enumerate(sources)]


def stream(*sizes: tuple[int, float], rules: MixtureRules) -> MixtureStream:
    return MixtureStream(streams_of(rows_of(sizes)), rules)


def length_of(place: str) -> int:
    """Some length that differs from row to row."""
    return 1 + hash_of(place) % 50


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode(), "big") * 2654435761 % 2**32


def places(reader: RowReader, length: Callable[[str], int] = length_of) -> Iterator[str]:
    """The places of the rows, each told its length at once."""
    for row in reader:
        place = str(row.source)
        if isinstance(reader, TakesLengths):
            reader.report([length(place)])
        yield place


@given(SIZES, st.sampled_from(RULES))
def test_without_shuffling_a_stream_gives_what_data_sets_give(sizes, rules):
    data = Mixture(rows_of(sizes), rules)
    lengths = np.array([length_of(str(data[row].source)) for row in range(len(data))])
    expected = [str(data[int(row)].source) for row in data.order(0, 0, False, lengths)]
    assert list(places(stream(*sizes, rules=rules).open())) == expected


@given(SIZES, st.sampled_from(RULES), st.data())
def test_a_position_goes_on_exactly_in_another_process(sizes, rules, data):
    mixture = stream(*sizes, rules=rules)
    whole = list(places(mixture.open()))
    count = data.draw(st.integers(0, len(whole)))
    reader = mixture.open()
    begun = [place for _, place in zip(range(count), places(reader), strict=False)]
    position = json.loads(json.dumps(reader.position))
    reader.close()
    assert begun + list(places(pickle.loads(pickle.dumps(mixture)).open(position))) == whole


@given(SIZES, st.integers(1, 7), st.data())
def test_a_position_also_holds_what_was_not_told_yet(sizes, block, data):
    mixture = stream(*sizes, rules=MixtureRules("interleave", True, "all_exhausted"))

    def read(reader: Any, count: int, untold: list[int]) -> list[str]:
        """Rows whose lengths are told a block at a time; `untold` carries what is left."""
        found: list[str] = []
        for _ in range(count):
            row = next(reader, None)
            if row is None:
                break
            found.append(str(row.source))
            untold.append(length_of(found[-1]))
            if len(untold) == block:
                reader.report(untold)
                untold.clear()
        return found

    # Where a source is short and its weight great, a pass is very long.
    whole = read(mixture.open(), 500, [])
    count = data.draw(st.integers(0, len(whole)))
    reader, untold = mixture.open(), []
    begun = read(reader, count, untold)
    assert begun + read(mixture.open(json.loads(json.dumps(reader.position))), 500 - count, untold) == whole


def test_tokens_told_block_by_block_come_to_the_shares():
    # Rows of a have 10 tokens, rows of b 40; a shall have 3/4 of the tokens: 12 of its rows for one of b's.
    mixture = stream((13_000, 3.0), (2_000, 1.0), rules=MixtureRules("interleave", True, "first_exhausted"))
    reader: Any = mixture.open()
    given_of = {"a": 0, "b": 0}
    for _ in range(20):
        lengths = []
        for row in islice(reader, 500):
            lengths.append(10 if row.source.path == "a" else 40)
            given_of[row.source.path] += lengths[-1]
        reader.report(lengths)
    # After the first block, in which all rows count alike, every later one makes up for it: within a row each.
    assert sum(given_of.values()) > 100_000
    assert abs(given_of["a"] - 3 * given_of["b"]) <= 3 * 40 + 10


def test_a_source_that_was_not_told_of_counts_as_the_others_do():
    # 100 rows of a and one of b were given; without a's mean in its place, b would now be asked for hundreds of rows.
    reader: Any = stream((5_000, 100.0), (5_000, 1.0), rules=MixtureRules("interleave", True)).open()
    first = [next(reader).source.path for _ in range(101)]
    assert (first.count("a"), first.count("b")) == (100, 1)
    reader.report([500] * 1)
    following = [next(reader).source.path for _ in range(202)]
    assert following.count("b") == 2


def test_faulty_rows_are_raised_in_their_turn_and_the_rest_follows():
    broken = [source(DatasetStream(Rows("a", 4, (1, 2))), 1.0, 0), source(DatasetStream(Rows("b", 2)), 1.0, 1)]
    reader = MixtureStream(broken, MixtureRules("interleave", stopping="without_replacement")).open()
    seen: list[str] = []
    while True:
        try:
            seen.append(str(next(reader).source))
        except DataError as error:
            seen.append(str(error).partition(" ")[0])
        except StopIteration:
            break
    # The row after a faulty one takes its turn: a has given one row and b one when a is asked again.
    assert seen == ["a:1", "b:1", "a:2:", "a:3:", "a:4", "b:2"]


class Fails:
    """A stream of two rows that goes away after them, or cannot be opened a second time."""

    def __init__(self, opens: int) -> None:
        self.opens = opens

    def open(self, position: Any = None) -> RowReader:
        if not self.opens:
            raise DataError("away.jsonl: no such file")
        self.opens -= 1
        return DatasetStream(Rows("away.jsonl", 2)).open(position)


def test_a_source_that_goes_away_is_no_faulty_row():
    rules = MixtureRules("interleave", stopping="all_exhausted")
    reader = MixtureStream([source(Fails(1)), source(DatasetStream(Rows("b", 9)), 1.0, 1)], rules).open()
    assert [next(reader).source.path for _ in range(3)] == ["away.jsonl", "b", "away.jsonl"]
    with pytest.raises(SourceError, match=r"^away\.jsonl: no such file"):
        for _ in reader:
            pass


def test_sources_without_rows_or_tokens_leave(caplog):
    rules = MixtureRules("interleave", True, "all_exhausted")
    mixture = MixtureStream(streams_of([source(Rows("a", 3)), source(Rows("b", 0)), source(Rows("c", 2))]), rules)
    read = list(places(mixture.open(), lambda place: 0 if place.startswith("c") else 7))
    assert [place for place in read if place.startswith("a")] == ["a:1", "a:2", "a:3"]
    assert sorted({place for place in read if place.startswith("c")}) == ["c:1", "c:2"]
    assert "dataset.sources.1 takes no part in the mixture: it has no rows" in caplog.text
    assert "dataset.sources.2 takes no part in the mixture: no row of it has tokens" in caplog.text


def test_only_readers_that_share_tokens_want_lengths():
    by_rows = stream((2, 1.0), rules=MixtureRules("interleave"))
    by_tokens = stream((2, 1.0), rules=MixtureRules("interleave", True))
    assert not isinstance(by_rows.open(), TakesLengths)
    assert isinstance(by_tokens.open(), TakesLengths)
    assert isinstance(MixtureStream([source(by_tokens)], MixtureRules("interleave")).open(), TakesLengths)


def test_lengths_that_nobody_tells_are_asked_for(monkeypatch):
    monkeypatch.setattr(mixture_stream, "MAX_UNTOLD", 5)
    reader = stream((50, 1.0), rules=MixtureRules("interleave", True)).open()
    with pytest.raises(
        ConfigError, match=r"nobody told those of the last 5 rows; choose --set dataset\.weights_by=rows"
    ):
        list(reader)


@given(st.integers(0, 40), st.integers(1, 5))
def test_a_mixture_of_mixtures_is_told_and_goes_on_exactly(count, block):
    def make() -> MixtureStream:
        inner = stream((5, 2.0), (3, 1.0), rules=MixtureRules("interleave", True, "all_exhausted"))
        outer = [source(inner, 1.0, 0), source(DatasetStream(Rows("z", 30)), 2.0, 1)]
        return MixtureStream(outer, MixtureRules("interleave", False, "all_exhausted"))

    def read(reader: Any, count: int) -> list[str]:
        """Whole blocks, told at once."""
        found: list[str] = []
        while len(found) < count and (rows := list(islice(reader, block))):
            found += [str(row.source) for row in rows]
            reader.report([length_of(str(row.source)) for row in rows])
        return found

    whole = read(make().open(), 10_000)
    assert len(whole) == 45  # z has the share 2/3 and is through after 30 rows
    reader = make().open()
    begun = read(reader, count)
    assert begun + read(make().open(json.loads(json.dumps(reader.position))), 10_000) == whole


def test_a_position_of_another_mixture_is_refused():
    position = stream((2, 1.0), rules=MixtureRules()).open().position
    with pytest.raises(DataError, match="the position is of a mixture of 1 sources, this one has 2; use the same data"):
        stream((2, 1.0), (2, 1.0), rules=MixtureRules()).open(position)


def test_memory_does_not_grow_with_what_was_told():
    reader: Any = stream((3, 1.0), (4_000, 1.0), rules=MixtureRules("interleave", True)).open()
    size = 0
    for number, _ in enumerate(places(reader)):
        if number == 100:
            size = len(pickle.dumps(reader.position))
    assert number > 4_000
    assert len(pickle.dumps(reader.position)) < size + 100
