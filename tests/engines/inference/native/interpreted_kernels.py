"""Facts about the Triton kernels, which `test_interpreted.py` has Triton's interpreter check on any machine."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmkit.engines.inference.native.cuda.attention import (
    Places,
    Scores,
    Tiles,
    attend_drawn,
    attend_read,
    num_splits,
    store,
    tile_size,
)
from llmkit.engines.inference.native.paged_attention import LayerCache, LayerShape, PagedLayout
from llmkit.engines.inference.native.runner import BLOCK_SIZE, Step

pytestmark = pytest.mark.usefixtures("bfloat16_products")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


class Case(NamedTuple):
    """Sequences with some tokens in the cache and some that come, and a layer."""

    spans: list[tuple[int, int]]  # first new position, number of new tokens
    kv_heads: int = 2
    groups: int = 2
    key_width: int = 8
    value_width: int = 8
    window: int | None = None
    softcap: float | None = None
    has_sinks: bool = False
    dtype: torch.dtype = torch.float32
    num_programs: int = 1


class Layer:
    """Random states of a case, its cache with what came before, and a cache of shuffled blocks."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(case.dtype)

        self.case = case
        lengths = [first + count for first, count in case.spans]
        widest = max(-(-length // BLOCK_SIZE) for length in lengths)
        num_blocks = len(lengths) * widest + 1
        order = torch.randperm(num_blocks, generator=generator)
        self.tables = order[: len(lengths) * widest].view(len(lengths), widest).int()
        shape = LayerShape(case.kv_heads, case.key_width, case.value_width, case.dtype, case.dtype)
        self.cache = LayerCache.empty(shape, num_blocks, torch.device("cpu"))
        # What lies in slots that nobody wrote may be anything.
        self.cache.keys.fill_(float("nan"))
        self.cache.values.fill_(float("nan"))
        for table, (first, _) in zip(self.tables, case.spans, strict=True):
            for place in range(first):
                block, offset = int(table[place // BLOCK_SIZE]), place % BLOCK_SIZE
                self.cache.keys[block, :, offset] = random(case.kv_heads, case.key_width)
                self.cache.values[block, :, offset] = random(case.kv_heads, case.value_width)
        total = sum(count for _, count in case.spans)
        heads = case.kv_heads * case.groups
        self.query = random(1, total, heads, case.key_width).transpose(1, 2)
        self.key = random(1, total, case.kv_heads, case.key_width).transpose(1, 2)
        self.value = random(1, total, case.kv_heads, case.value_width).transpose(1, 2)
        self.sinks = random(heads) if case.has_sinks else None
        self.scaling = case.key_width**-0.5

    def places(self) -> Places:
        positions = [place for first, count in self.case.spans for place in range(first, first + count)]
        slots = [
            int(self.tables[row, place // BLOCK_SIZE]) * BLOCK_SIZE + place % BLOCK_SIZE
            for row, (first, count) in enumerate(self.case.spans)
            for place in range(first, first + count)
        ]
        return Places(_int32(positions), _int32(slots), self.tables, self.case.num_programs)

    def ours(self) -> Tensor:
        """[T, H, D_v] by the kernels: sequences of one token first, which the others follow."""
        case, places = self.case, self.places()
        counts = [count for _, count in case.spans]
        num_drawn = next((row for row, count in enumerate(counts) if count > 1), len(counts))
        store(self.cache, self.key[0], self.value[0], places.slots)
        scores = Scores(self.scaling, case.window or 0, case.softcap, self.sinks)
        query = self.query[0]
        out = torch.full((query.shape[1], query.shape[0], case.value_width), float("nan"), dtype=case.dtype)
        if num_drawn:
            attend_drawn(query[:, :num_drawn], self.cache, places, scores, out[:num_drawn])
        if num_drawn < len(counts):
            attend_read(query, self.cache, places, scores, tiles(counts, num_drawn, tile_size(case.groups, 64)), out)
        return out

    def theirs(self) -> Tensor:
        """[T, H, D_v] by the runner that needs no kernels."""
        case = self.case
        counts = torch.tensor([0, *(count for _, count in case.spans)])
        starts = counts.cumsum(0).int()
        positions = self.places().positions.long()
        step = Step(positions, positions, starts, self.tables, starts[1:] - 1, [None] * len(case.spans))
        cache = LayerCache(self.cache.keys.nan_to_num(0), self.cache.values.nan_to_num(0))
        module: Any = None
        layout = PagedLayout(step, [cache])
        options = {"sliding_window": case.window, "softcap": case.softcap, "s_aux": self.sinks}
        return layout.attend(module, self.query, self.key, self.value, self.scaling, **options)[0]


def tiles(counts: list[int], from_row: int, size: int) -> Tiles:
    rows, firsts, lengths = [], [], []
    start = sum(counts[:from_row])
    for row, count in enumerate(counts[from_row:], start=from_row):
        for begin in range(0, count, size):
            rows.append(row)
            firsts.append(start + begin)
            lengths.append(min(size, count - begin))
        start += count
    return Tiles(_int32(rows), _int32(firsts), _int32(lengths), size)


def _int32(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def check(case: Case) -> None:
    layer = Layer(case)
    expected = layer.theirs()
    tolerance = TOLERANCE[case.dtype]
    torch.testing.assert_close(layer.ours(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"groups": 7, "kv_heads": 1},
        {"key_width": 24, "value_width": 12, "groups": 1},
        {"window": 5},
        {"softcap": 1.5},
        {"has_sinks": True, "window": 20},
        {"num_programs": 64},
        {"num_programs": 64, "has_sinks": True, "softcap": 2.0, "window": 40},
    ],
    ids=str,
)
def test_kernels_compute_what_plain_attention_does(changes: dict[str, Any], dtype: torch.dtype):
    check(Case([(0, 1), (15, 1), (16, 1), (70, 1), (0, 5), (30, 21)], dtype=dtype, **changes))


SPANS = st.tuples(st.integers(0, 150), st.integers(2, 40))
DRAWN = st.tuples(st.integers(0, 200), st.just(1))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.builds(
        Case,
        st.tuples(st.lists(DRAWN, max_size=3), st.lists(SPANS, max_size=2)).map(lambda both: both[0] + both[1])
        .filter(bool),
        kv_heads=st.integers(1, 3),
        groups=st.sampled_from([1, 2, 3, 5, 8, 80]),
        key_width=st.sampled_from([4, 8, 16, 24, 40]),
        value_width=st.sampled_from([4, 12, 16, 20]),
        window=st.none() | st.integers(1, 90),
        softcap=st.none() | st.floats(0.5, 50),
        has_sinks=st.booleans(),
        num_programs=st.sampled_from([1, 4, 30, 1000]),
        dtype=st.sampled_from(list(TOLERANCE)),
    )
)  # fmt: skip
def test_kernels_compute_what_plain_attention_does_for_any_shape(case: Case):
    check(case)


def test_only_the_slots_of_the_tokens_are_written():
    layer = Layer(Case([(17, 1), (3, 4)]))
    before = LayerCache(layer.cache.keys.clone(), layer.cache.values.clone())
    places = layer.places()
    store(layer.cache, layer.key[0], layer.value[0], places.slots)
    before.write(places.slots.long() // BLOCK_SIZE, places.slots.long() % BLOCK_SIZE, layer.key, layer.value)
    torch.testing.assert_close(layer.cache.keys, before.keys, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(layer.cache.values, before.values, rtol=0, atol=0, equal_nan=True)


def test_a_table_may_lie_in_columns():
    layer = Layer(Case([(40, 1), (5, 1), (33, 1)], num_programs=40))
    expected = layer.theirs()
    layer.tables = layer.tables.T.contiguous().T
    assert layer.tables.stride() == (1, 3)
    torch.testing.assert_close(layer.ours(), expected, rtol=1e-5, atol=1e-5)


def test_tiles_hold_what_fits():
    assert tile_size(groups=4, query_bytes=256) == 16
    assert tile_size(groups=7, query_bytes=128) == 9
    assert tile_size(groups=1, query_bytes=1024) == 32
    assert tile_size(groups=80, query_bytes=64) == 1


def test_keys_are_divided_so_that_the_device_is_busy_and_no_further():
    assert num_splits(256, 8, 264) == 1
    assert num_splits(16, 8, 264) == 4
    assert num_splits(1, 8, 264) == 32
    assert num_splits(1, 1, 10_000) == 32
