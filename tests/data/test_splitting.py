"""Rows that are held out: which they are, and that they never come to training."""

import json
import pickle
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.contract import Fingerprinted, Ordered
from llmkit.data.mixtures.mixture_data import Mixture
from llmkit.data.mixtures.mixture_source import MixtureRules, MixtureSource
from llmkit.data.mixtures.mixture_stream import MixtureStream
from llmkit.data.splitting import BLOCK, held_out, split
from llmkit.data.stream_views import DatasetStream, StreamView
from llmkit.errors import DataError
from llmkit.types import Record, Source

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


@dataclass
class Rows:
    """Records `name:1` to `name:N`; reading one of `faulty` fails."""

    name: str
    num_rows: int
    faulty: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Record:
        if index in self.faulty:
            raise DataError(f"{self.name}:{index + 1}: torn")
        return Record((), Source(self.name, index + 1))

    def fingerprint(self) -> str:
        return f"{self.name} {self.num_rows}"


def lines(data: Any) -> list[int]:
    rows = (data[index] for index in range(len(data))) if hasattr(data, "__len__") else data.open()
    return [row.source.line for row in rows]


def mixture(*sizes: int, rules: MixtureRules, streams: bool = False) -> Any:
    rows = [Rows(f"s{number}", size) for number, size in enumerate(sizes)]
    wrap = DatasetStream if streams else lambda data: data
    formatter: Any = None  # records need none
    sources = [MixtureSource(wrap(data), formatter, 1.0, "", "") for data in rows]
    return (MixtureStream if streams else Mixture)(sources, rules)


@given(st.integers(50, 300), st.floats(0.2, 0.8), st.integers(0, 2**40))
def test_every_row_is_on_one_side_and_appended_rows_move_none(num_rows, fraction, seed):
    training, measured = split(Rows("a", num_rows), fraction, seed)
    assert sorted(lines(training) + lines(measured)) == list(range(1, num_rows + 1))
    more = split(Rows("a", num_rows + 20), fraction, seed)
    assert lines(more[0])[: len(training)] == lines(training)
    assert lines(more[1])[: len(measured)] == lines(measured)


@given(st.integers(50, 3000), st.floats(0.2, 0.8), st.integers(0, 2**40))
def test_a_stream_is_divided_as_a_data_set_is(num_rows, fraction, seed):
    sides = split(Rows("a", num_rows), fraction, seed)
    streams = split(DatasetStream(Rows("a", num_rows)), fraction, seed)
    assert [lines(side) for side in streams] == [lines(side) for side in sides]


def test_the_same_rows_are_held_out_on_every_machine():
    assert np.flatnonzero(held_out(0, 0.1, 0, 60)).tolist() == [29, 38, 44, 48, 49, 50, 54]
    assert held_out(0, 0.1, 1000, 100).tolist() == held_out(0, 0.1, 0, 1100)[1000:].tolist()
    assert held_out(1, 0.1, 0, 60).tolist() != held_out(0, 0.1, 0, 60).tolist()


def test_the_share_is_the_fraction():
    # Of 100,000 draws with probability 0.03, three standard deviations are 162.
    assert abs(held_out(5, 0.03, 0, 100_000).sum() - 3000) < 162


@pytest.mark.parametrize(
    ("fraction", "what"), [(0.001, "holds out none of 5 rows"), (0.999, "holds out all of 5 rows")]
)
def test_a_side_without_rows_is_refused(fraction: float, what: str):
    with pytest.raises(DataError, match=rf"^data\.validation_fraction={fraction} {what}; choose another fraction, or"):
        split(Rows("a", 5), fraction, 0)


def test_the_sides_have_fingerprints_of_their_own_when_the_whole_has_one():
    def fingerprints(data: Any, fraction: float, seed: int) -> set[str]:
        return {side.fingerprint() for side in split(data, fraction, seed)}  # type: ignore[attr-defined]

    first = fingerprints(Rows("a", 50), 0.5, 0)
    assert fingerprints(Rows("a", 50), 0.5, 0) == first
    others = (
        fingerprints(Rows("b", 50), 0.5, 0) | fingerprints(Rows("a", 50), 0.4, 0) | fingerprints(Rows("a", 50), 0.5, 1)
    )
    assert len(first | others) == 8
    assert len(fingerprints(DatasetStream(Rows("a", 50)), 0.5, 0)) == 2
    for side in (*split([*range(50)], 0.5, 0), *split(DatasetStream([*range(50)]), 0.5, 0)):  # type: ignore[arg-type]
        assert not isinstance(side, Fingerprinted)


def test_the_sides_travel_to_other_processes():
    for data in (Rows("a", 50), DatasetStream(Rows("a", 50)), mixture(30, 30, rules=MixtureRules())):
        for side in split(data, 0.5, 3):
            copy = pickle.loads(pickle.dumps(side))
            assert lines(copy) == lines(side)
            assert copy.fingerprint() == side.fingerprint()  # type: ignore[attr-defined]


def test_a_data_set_without_an_order_of_its_own_gets_none():
    assert not isinstance(split(Rows("a", 50), 0.5, 0)[0], Ordered)


@given(st.integers(20, 60), st.integers(20, 60), st.booleans(), st.integers(0, 3))
def test_the_training_side_of_a_mixture_keeps_its_order(size, other_size, shuffle, epoch):
    whole = mixture(size, other_size, rules=MixtureRules("interleave", stopping="all_exhausted"))
    training, measured = split(whole, 0.3, 1)
    assert isinstance(training, Ordered)
    held = {(row.source.path, row.source.line) for row in map(measured.__getitem__, range(len(measured)))}
    expected = [whole[int(row)].source for row in whole.order(epoch, 9, shuffle)]
    order = [training[int(row)].source for row in training.order(epoch, 9, shuffle)]  # type: ignore[union-attr]
    assert order == [place for place in expected if tuple(place) not in held]


def test_by_tokens_the_training_rows_of_a_mixture_have_the_shares():
    whole = mixture(400, 100, rules=MixtureRules("interleave", True, "all_exhausted"))
    training: Any = split(whole, 0.2, 0)[0]
    assert training.needs_lengths
    sources = np.array([training[row].source.path == "s0" for row in range(len(training))])
    lengths = np.where(sources, 10, 35)
    order = training.order(0, 0, True, lengths)
    shares = np.cumsum(np.where(sources[order], lengths[order], 0)) - np.cumsum(lengths[order]) / 2
    assert np.abs(shares).max() <= 35
    assert set(order.tolist()) == set(range(len(training)))


def test_the_position_of_a_side_goes_on_exactly():
    data = DatasetStream(Rows("a", 3 * BLOCK))
    for side in split(data, 0.4, 2):
        whole = lines(side)
        for count in (0, 1, BLOCK // 3, len(whole) - 1, len(whole)):
            reader = side.open()
            begun = [row.source.line for row in islice(reader, count)]
            position = json.loads(json.dumps(reader.position))
            reader.close()
            assert begun + [row.source.line for row in side.open(position)] == whole


def test_a_faulty_row_is_raised_on_its_own_side_alone():
    data = DatasetStream(Rows("a", 60, faulty=(7,)))
    clean = split(DatasetStream(Rows("a", 60)), 0.5, 0)
    for side, without_fault in zip(split(data, 0.5, 0), clean, strict=True):
        reader, seen, faults = side.open(), [], []
        while True:
            try:
                seen.append(next(reader).source.line)
            except StopIteration:
                break
            except DataError as error:
                faults.append(str(error))
        assert faults == (["a:8: torn"] if 8 in lines(without_fault) else [])
        assert seen == [line for line in lines(without_fault) if line != 8]


def test_a_source_that_repeats_keeps_its_rows_on_their_side():
    whole = mixture(7, 200, rules=MixtureRules("interleave", stopping="all_exhausted"), streams=True)
    for seed in range(5):
        sides = [{tuple(row.source) for row in side.open()} for side in split(whole, 0.4, seed)]
        assert not sides[0] & sides[1]
        assert len(sides[0]) + len(sides[1]) == 207


def test_the_first_rows_of_a_stream():
    view = StreamView(DatasetStream(Rows("a", 5)), "the first 2", num_rows=2)
    assert lines(view) == [1, 2]
    assert lines(StreamView(DatasetStream(Rows("a", 5)), "the first 9", num_rows=9)) == [1, 2, 3, 4, 5]
    reader = view.open()
    next(reader)
    assert [row.source.line for row in view.open(json.loads(json.dumps(reader.position)))] == [2]
