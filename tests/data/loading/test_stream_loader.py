import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.config.schema import BatchConfig
from llmkit.data.counts import RowCounts
from llmkit.data.loading.stream_loader import StreamLoader
from llmkit.data.row_errors import RowErrors
from llmkit.errors import CheckpointError, ConfigError, DataError
from llmkit.types import Sample

FAKES = Path(__file__).parent.parent / "fakes"
WORDS = ["a", "bb", "ccc", "dropped", "dd", "faulty", "e", "f", "unreadable", "gg", "hhhh", "i", "dropped", "jj"]
KEPT = [word for word in WORDS if word not in ("dropped", "faulty", "unreadable")]


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FAKES))


def loader_of(stream: Any = WORDS, **options: Any) -> StreamLoader[Sample]:
    from character_encoding import CharacterEncoder, TextFormatter
    from word_streams import Words

    stream = Words(stream) if isinstance(stream, list) else stream
    encoder = CharacterEncoder(options.pop("max_length", 5), options.pop("split", False))
    batch = {key: options.pop(key) for key in list(options) if key in BatchConfig.model_fields}
    batch = BatchConfig.model_validate({"rows_per_step": 3, **batch})
    defaults: dict[str, Any] = {"seed": 0, "shuffle": True, "shuffle_block": 5, "num_workers": 0, "max_length": 5}
    options = {"errors": RowErrors("skip", 9), **defaults, **options}
    return StreamLoader(stream, TextFormatter(), encoder, batch, **options)


def balanced(*lists: list[str]) -> Any:
    from word_streams import Balanced

    return Balanced(*lists)


def words_of(*words: str) -> Any:
    from word_streams import Words

    return Words(words)


LOADERS: dict[str, Callable[..., StreamLoader[Sample]]] = {
    "rows": loader_of,
    "tokens": lambda **options: loader_of(tokens_per_step=8, **options),
    "best_fit": lambda **options: loader_of(packing="best_fit", rows_per_step=2, **options),
    "best_fit_tokens": lambda **options: loader_of(packing="best_fit", tokens_per_step=11, **options),
    "length": lambda **options: loader_of(packing="length", **options),
    "divided": lambda **options: loader_of(max_length=2, split=True, **options),
    "divided_packed": lambda **options: loader_of(max_length=2, split=True, packing="best_fit", **options),
    "balanced": lambda **options: loader_of(balanced(WORDS, ["x", "yy", "zzzz", "faulty"]), **options),
    "balanced_packed": lambda **options: loader_of(balanced(WORDS, ["x", "yyy"]), packing="best_fit", **options),
}


@pytest.fixture(params=list(LOADERS))
def load(request: pytest.FixtureRequest) -> Callable[..., StreamLoader[Sample]]:
    return LOADERS[request.param]


def texts(items: Iterable[Sample]) -> list[str]:
    return ["".join(map(chr, item.token_ids)) for item in items]


def steps(loader: StreamLoader[Sample], count: int) -> list[list[str]]:
    return [texts(loader.next_step()) for _ in range(count)]


def items(loader: StreamLoader[Sample], count: int) -> list[str]:
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += texts(loader.next_step())
    return drawn[:count]


def saved(loader: StreamLoader[Sample]) -> Any:
    """The state as a checkpoint keeps it."""
    return json.loads(json.dumps(loader.state_dict()))


def test_without_shuffling_rows_come_as_they_are():
    loader = loader_of(shuffle=False, rows_per_step=4)
    assert steps(loader, 3) == [["a", "bb", "ccc", "dd"], ["e", "f", "gg", "hhhh"], ["i", "jj", "a", "bb"]]
    assert loader.counts == RowCounts(rows=16, skipped=2, dropped=2, tokens=22, trained_tokens=10)
    # An epoch has 14 rows, as the first one has shown.
    assert loader.epoch == pytest.approx(1 + 2 / 14)


def test_the_epoch_is_a_whole_number_until_the_first_is_through():
    loader = loader_of(shuffle=False, rows_per_step=9)
    steps(loader, 1)
    assert loader.epoch == 0
    assert loader.num_rows is None


def test_rows_are_shuffled_within_their_block():
    words = [f"{number:03}" for number in range(40)]
    drawn = items(loader_of(words, shuffle_block=10, rows_per_step=1), 80)
    blocks = [drawn[start : start + 10] for start in range(0, 80, 10)]
    for number, block in enumerate(blocks):
        own = words[number % 4 * 10 : number % 4 * 10 + 10]
        assert sorted(block) == own
        assert block != own
    # Every block and every epoch has an order of its own.
    assert len({tuple(word[-1] for word in block) for block in blocks}) == 8
    assert drawn == items(loader_of(words, shuffle_block=10, rows_per_step=7), 80)
    assert drawn != items(loader_of(words, shuffle_block=10, rows_per_step=1, seed=1), 80)


def test_a_block_of_one_row_keeps_the_order():
    assert items(loader_of(["a", "b", "c"], shuffle_block=1), 6) == ["a", "b", "c"] * 2


@pytest.mark.parametrize("name", [name for name in LOADERS if not name.startswith(("divided", "balanced"))])
def test_every_epoch_has_every_item_once(name: str):
    drawn = items(LOADERS[name](), 3 * len(KEPT))
    for epoch in range(3):
        assert sorted(drawn[epoch * len(KEPT) : (epoch + 1) * len(KEPT)]) == sorted(KEPT)


def test_the_bins_of_a_block():
    # Blocks of 5 and 4 rows, bins of 5 tokens: 4 + 1, 2 + 2, 3; then 3 + 2, 1.
    words = ["aaaa", "bb", "ccc", "d", "ee", "fff", "gg", "h"]
    loader = loader_of(words, shuffle=False, packing="best_fit", rows_per_step=1)
    assert steps(loader, 6) == [["aaaa", "d"], ["bb", "ccc"], ["ee"], ["fff", "gg"], ["h"], ["aaaa", "d"]]
    # A bin of 7 tokens, as it was asked for.
    loader = loader_of(words, shuffle=False, packing="best_fit", rows_per_step=1, pack_length=7)
    assert steps(loader, 2) == [["aaaa", "ccc"], ["bb", "d", "ee"]]


def test_as_many_items_as_fit_the_tokens():
    loader = loader_of(["aaaa", "bb", "ccc", "dddd", "e"], shuffle=False, tokens_per_step=6, shuffle_block=2)
    assert steps(loader, 4) == [["aaaa", "bb"], ["ccc"], ["dddd", "e"], ["aaaa", "bb"]]
    # The row that did not fit was read, and is not counted.
    assert loader_of(["aaaa", "bb", "ccc"], shuffle=False, tokens_per_step=6).next_step()
    loader = loader_of(["aaaa", "bb", "ccc"], shuffle=False, tokens_per_step=6)
    loader.next_step()
    assert loader.counts.rows == 2


def test_stopped_after_any_step_it_goes_on_with_the_same_items(load: Callable[..., StreamLoader[Sample]]):
    for shuffle in (True, False):
        whole = steps(load(shuffle=shuffle), 30)
        loader = load(shuffle=shuffle)
        for number in range(24):
            state = saved(loader)
            resumed = load(shuffle=shuffle)
            resumed.load_state_dict(state)
            assert (saved(resumed), resumed.epoch, resumed.counts) == (state, loader.epoch, loader.counts)
            assert steps(resumed, 6) == whole[number : number + 6]
            loader.next_step()
        assert loader.epoch > 2
        # Resumed once at every step, it has counted what the other has.
        stepping = load(shuffle=shuffle)
        for _ in range(24):
            resumed = load(shuffle=shuffle)
            resumed.load_state_dict(saved(stepping))
            resumed.next_step()
            stepping = resumed
        assert saved(stepping) == saved(loader)


def test_the_global_order_is_kept_under_another_world_size(load: Callable[..., StreamLoader[Sample]]):
    whole = steps(load(), 15)
    seen: list[list[str]] = []
    state: Any = None
    for world_size in (1, 2, 3, 1, 3):
        loaders = [load(rank=rank, world_size=world_size) for rank in range(world_size)]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
        for _ in range(3):
            shares = [texts(loader.next_step()) for loader in loaders]
            step = [""] * sum(map(len, shares))
            for rank, share in enumerate(shares):
                step[rank::world_size] = share
            seen.append(step)
        states = [saved(loader) for loader in loaders]
        assert all(other == states[0] for other in states)
        state = states[-1]
    assert seen == whole


@pytest.mark.parametrize("name", ["rows", "best_fit", "balanced"])
def test_processes_that_encode_change_nothing(name: str):
    load = LOADERS[name]
    whole, alone = steps(load(), 9), load()
    steps(alone, 4)
    loader = load(num_workers=2)
    assert steps(loader, 4) == whole[:4]
    # What was read ahead is not counted.
    assert saved(loader) == saved(alone)
    state = saved(loader)
    loader.close()
    resumed = load(num_workers=2)
    resumed.load_state_dict(state)
    assert steps(resumed, 5) == whole[4:]
    resumed.close()


@settings(deadline=None, max_examples=80)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=20),
    name=st.sampled_from(["rows", "tokens", "best_fit", "length", "divided", "divided_packed"]),
    seed=st.integers(0, 5),
    block=st.integers(1, 7),
    before=st.integers(0, 8),
)
def test_whatever_the_words_a_saved_position_goes_on(words: list[str], name: str, seed: int, block: int, before: int):
    sys.path.insert(0, str(FAKES))
    try:
        options: dict[str, Any] = {"stream": [*words, "k"], "seed": seed, "shuffle_block": block}
        options["errors"] = RowErrors("skip", 999)
        loader = LOADERS[name](**options)
        steps(loader, before)
        state = saved(loader)
        resumed = LOADERS[name](**options)
        resumed.load_state_dict(state)
        assert steps(resumed, 5) == steps(loader, 5)
        assert saved(resumed) == saved(loader)
    finally:
        sys.path.remove(str(FAKES))


def test_a_reader_that_asks_is_told_the_tokens_of_every_block_in_its_order():
    stream = balanced(["aaaa", "b", "unreadable", "dropped"], ["cc", "faulty", "ee"])
    loader = loader_of(stream, shuffle_block=3, rows_per_step=1)
    assert sorted(items(loader, 4)) == ["aaaa", "b", "cc", "ee"]
    # Untold rows count 1: aaaa, cc, b. Then it is 5 tokens to 2: faulty, ee, and the row that cannot be read, which was
    # not given. Then there is only the first list.
    loader.next_step()
    assert stream.told[:3] == [[4, 2, 1], [0, 2], [0]]


def test_only_a_block_is_read():
    stream = words_of(*[f"{number:03}" for number in range(100)])
    loader = loader_of(stream, shuffle_block=10, rows_per_step=4)
    loader.next_step()
    # Rows are encoded 64 at a time; without a block's end in sight that would be one more block at most.
    assert stream.num_read <= 70
    loader.close()
    assert stream.num_open == 0


def test_peeking_and_reading_all_leave_the_position(load: Callable[..., StreamLoader[Sample]]):
    loader, other = load(), load()
    steps(loader, 2)
    counts = RowCounts(**saved(loader)["counts"])
    every = texts(load().read_all())
    assert texts(loader.first(3)) == every[:3]
    assert loader.counts == counts
    assert texts(loader.read_all()) == every
    assert texts(loader.read_all(limit=1)) == every[:1]
    assert loader.read_all(limit=0) == []
    assert steps(loader, 4) == steps(other, 6)[2:]


def test_a_peek_closes_what_it_opened():
    stream = words_of(*WORDS)
    loader_of(stream).first(2)
    assert stream.num_open == 0


def test_a_stream_needs_max_steps():
    with pytest.raises(ConfigError, match=r"max_steps must be set for a stream: .*num_epochs=1\.5 .*--max-steps N"):
        loader_of().num_steps(1.5)


def test_an_empty_stream_is_an_error():
    with pytest.raises(DataError, match="The stream has no rows"):
        loader_of([]).next_step()


@pytest.mark.parametrize("packing", ["none", "best_fit", "length"])
def test_dropping_everything_is_an_error_that_says_why(packing: str):
    loader = loader_of(["dropped", "faulty", "dropped"], packing=packing, shuffle_block=2)
    with pytest.raises(DataError, match=r"Nothing is left .* Of 3 rows: 2 longer than data\.max_length .*, 1 faulty"):
        loader.next_step()


def test_a_faulty_row_is_named_when_it_is_reached_and_again():
    errors = RowErrors("raise", 0)
    loader = loader_of(["a", "b", "c", "unreadable", "d"], errors=errors, shuffle=False, rows_per_step=2)
    assert steps(loader, 1) == [["a", "b"]]
    state = saved(loader)
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"words\.txt:4: unreadable \(or leave faulty rows out: --set data\.on_error"
        ):
            loader.next_step()
        assert saved(loader) == state


def test_faulty_rows_count_once_against_the_limit(load: Callable[..., StreamLoader[Sample]]):
    errors = RowErrors("skip", 3)
    loader = load(errors=errors)
    steps(loader, 25)
    assert errors.num_skipped in (2, 3)
    resumed_errors = RowErrors("skip", 3)
    resumed = load(errors=resumed_errors)
    resumed.load_state_dict(saved(loader))
    steps(resumed, 25)
    assert resumed_errors.num_skipped == errors.num_skipped


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("seed", {"seed": 1}),
        ("shuffle", {"shuffle": False}),
        ("shuffle_block", {"shuffle_block": 6}),
        ("packing", {"packing": "none"}),
        ("pack_length", {"pack_length": 9}),
    ],
)
def test_a_position_in_another_order_is_refused(key: str, other: dict[str, Any]):
    with pytest.raises(CheckpointError, match=rf"was saved with {key}=.*use the same data and settings"):
        loader_of(**{"packing": "best_fit", **other}).load_state_dict(saved(loader_of(packing="best_fit")))


@pytest.mark.parametrize("packing", ["none", "best_fit"])
def test_a_stream_that_has_lost_rows_is_an_error(packing: str):
    words = ["aaaa", "bbbb", "cccc", "dddd", "eeee", "ffff", "gggg"]
    loader = loader_of(words, packing=packing, rows_per_step=3, shuffle_block=10)
    loader.next_step()
    resumed = loader_of(words[:2], packing=packing, rows_per_step=3, shuffle_block=10)
    resumed.load_state_dict(saved(loader))
    with pytest.raises(DataError, match=r"past row 3 of the stream in epoch 0, which now has fewer"):
        resumed.next_step()
