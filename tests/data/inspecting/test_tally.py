"""Figures are gathered in little memory."""

import tracemalloc

from llmkit.data.contract import Encoded
from llmkit.data.inspecting.measuring import Measured, RoleCounts
from llmkit.data.inspecting.tally import Packing, Tally
from llmkit.errors import DataError
from llmkit.types import Source


def row(number: int, outcome: str = "kept") -> Encoded[Measured]:
    """A row of 100 tokens, of which 40 train."""
    roles = {"user": RoleCounts(1, 60, 0), "assistant": RoleCounts(1, 40, 40)}
    measured = Measured(Source("a.jsonl", number), (100,), (100,), 130, roles, number, number, number, num_turns=1)
    return Encoded((measured,), outcome, 100, 40)  # type: ignore[arg-type] - one of the outcomes


def test_every_row_is_in_exactly_one_count():
    tally = Tally(256)
    tally.add(row(1))
    tally.add(row(2, "truncated"))
    tally.add(DataError("a.jsonl:3: empty"))
    empty = Measured(Source("a.jsonl", 4), whole_tokens=900)
    tally.add(Encoded((empty,), "dropped"))
    tally.add(Encoded((empty,), "untrained"))
    figures = tally.figures()
    counts = figures.counts
    assert (counts.rows, figures.kept) == (5, 2)
    assert (counts.skipped, counts.dropped, counts.untrained, counts.truncated) == (1, 1, 1, 1)
    assert figures.tokens_cut == 30
    assert figures.trained_share == 0.4
    assert figures.roles["assistant"] == RoleCounts(2, 80, 80)
    assert figures.packing is not None
    assert figures.packing.num_bins == 1


def test_what_is_longer_than_a_bin_has_one_to_itself():
    tally = Tally(64)
    pair = Measured(Source("a.jsonl", 1), lengths=(60, 40), item_lengths=(100,))
    short = Measured(Source("a.jsonl", 2), lengths=(16,), item_lengths=(16,))
    for measured in (pair, short):
        tally.add(Encoded((measured,), "kept", sum(measured.lengths), 1))
    # A bin of 100 for the pair and one of 64 for the rest: 116 tokens in room for 164.
    assert tally.figures().packing == Packing(64, 2, 1, 116 / 164)


def test_a_row_costs_less_than_a_hundred_bytes():
    tally = Tally(256)
    tally.add(row(0))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1, 20_001):
            tally.add(row(number))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100 * 20_000


def test_nothing_read_has_no_figures():
    figures = Tally(256).figures()
    assert (figures.lengths, figures.packing, figures.histogram) == (None, None, [])
    assert figures.trained_share == 0
