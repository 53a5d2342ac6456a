import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmkit.config.schema import BatchConfig, DataConfig
from llmkit.data.counts import RowCounts
from llmkit.data.loading.loader import Loader, load_prepared, load_rows
from llmkit.data.preparing.prepared import prepare
from llmkit.data.row_errors import RowErrors
from llmkit.errors import CheckpointError, DataError
from llmkit.types import Row, Sample, Source

FAKES = Path(__file__).parent.parent / "fakes"
WORDS = ["a", "bb", "ccc", "dropped", "dd", "faulty", "e", "f", "unreadable", "gg", "hhhh", "i", "dropped", "jj"]
KEPT = [word for word in WORDS if word not in ("dropped", "faulty", "unreadable")]
PACKINGS: list[dict[str, Any]] = [
    {"rows_per_step": 3},
    {"tokens_per_step": 8},
    {"rows_per_step": 2, "packing": "best_fit", "pack_length": 5},
    {"tokens_per_step": 11, "packing": "best_fit"},
    {"rows_per_step": 3, "packing": "length"},
]


class Words:
    """A data set of words; the word `unreadable` cannot be read."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> Row:
        source = Source("words.txt", index + 1)
        if self.words[index] == "unreadable":
            raise DataError(f"{source}: unreadable")
        return Row({"text": self.words[index]}, source)


class Backwards(Words):
    """Decides the order of its rows, and leaves the first one out of odd epochs."""

    needs_lengths = False

    def order(self, epoch: int, seed: int, shuffle: bool, lengths: np.ndarray | None = None) -> np.ndarray:
        return np.arange(len(self))[::-1][: len(self) - epoch % 2]


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FAKES))


def tools(**options: Any) -> Any:
    from character_encoding import CharacterEncoder, TextFormatter

    return TextFormatter(), CharacterEncoder(**{"max_length": 5, **options})


def prepared_of(words: Sequence[str], max_skipped: int = 9, **options: Any) -> Any:
    config = DataConfig(cache=False, on_error="skip", max_skipped=max_skipped)
    return prepare(Words(words), *tools(**options), config)


def samples_of(words: Sequence[str] = WORDS, **options: Any) -> Loader[Sample]:
    encoding = {key: options.pop(key) for key in ("max_length", "split") if key in options}
    batch = BatchConfig.model_validate(
        {key: options.pop(key) for key in list(options) if key in BatchConfig.model_fields}
    )
    return load_prepared(
        prepared_of(words, **encoding), batch, **{"seed": 0, "shuffle": True, "max_length": 5, **options}
    )


def rows_of(words: Sequence[str] = WORDS, errors: RowErrors | None = None, **options: Any) -> Loader[Sample]:
    data = options.pop("data", None) or Words(words)
    encoding = {key: options.pop(key) for key in ("max_length", "split") if key in options}
    defaults = {"rows_per_step": 3, "seed": 0, "shuffle": True, "num_workers": 0}
    errors = errors or RowErrors("skip", 9)
    return load_rows(data, *tools(**encoding), errors=errors, **{**defaults, **options})


LOADERS: list[Any] = [
    *(pytest.param(lambda batch=batch, **options: samples_of(**batch, **options), id=f"prepared-{number}")
      for number, batch in enumerate(PACKINGS)),
    pytest.param(rows_of, id="rows"),
    pytest.param(lambda **options: rows_of(max_length=2, split=True, **options), id="rows-divided"),
]  # fmt: skip


def texts(items: Iterable[Sample]) -> list[str]:
    return ["".join(map(chr, item.token_ids)) for item in items]


def steps(loader: Loader[Sample], count: int) -> list[list[str]]:
    return [texts(loader.next_step()) for _ in range(count)]


def shared_steps(loaders: Sequence[Loader[Sample]], count: int) -> list[list[str]]:
    """Steps of all ranks together, put in their global order again."""
    whole: list[list[str]] = []
    for _ in range(count):
        shares = [texts(loader.next_step()) for loader in loaders]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        step = [""] * sum(map(len, shares))
        for rank, share in enumerate(shares):
            step[rank :: len(shares)] = share
        whole.append(step)
    return whole


def test_prepared_items_come_a_step_at_a_time():
    loader = samples_of(shuffle=False, rows_per_step=4)
    assert steps(loader, 3) == [["a", "bb", "ccc", "dd"], ["e", "f", "gg", "hhhh"], ["i", "jj", "a", "bb"]]
    assert (loader.num_rows, loader.epoch, loader.num_steps(1), loader.num_steps(2)) == (14, 1.2, 3, 5)
    # Of the 14 rows, two are dropped and two faulty; the others have 19 characters.
    assert loader.counts == RowCounts(rows=14, skipped=2, dropped=2, tokens=19, trained_tokens=9)


def test_rows_are_encoded_when_they_are_drawn():
    loader = rows_of(shuffle=False, rows_per_step=4)
    assert steps(loader, 1) == [["a", "bb", "ccc", "dd"]]
    # Row 4 was dropped and replaced; rows after the fifth are not counted yet.
    assert loader.counts == RowCounts(rows=5, dropped=1, tokens=8, trained_tokens=4)
    assert loader.epoch == pytest.approx(5 / 14)
    assert steps(loader, 2) == [["e", "f", "gg", "hhhh"], ["i", "jj", "a", "bb"]]
    assert loader.counts == RowCounts(rows=16, skipped=2, dropped=2, tokens=22, trained_tokens=10)
    # The last row of the epoch is kept, so the position is exactly two rows into the next one.
    assert loader.epoch == pytest.approx(1 + 2 / 14)
    assert (loader.num_rows, loader.num_steps(1), loader.num_steps(0.5)) == (14, 4, 2)


def test_both_kinds_draw_rows_in_the_same_order_when_nothing_is_left_out():
    words = [chr(ord("a") + number) for number in range(20)]
    one, other = samples_of(words, seed=3, rows_per_step=3), rows_of(words, seed=3, rows_per_step=3)
    assert steps(one, 20) == steps(other, 20)


@pytest.mark.parametrize("load", LOADERS)
def test_reading_all_and_peeking_leave_the_position(load: Callable[..., Loader[Sample]]):
    loader, other = load(seed=1), load(seed=1)
    assert steps(loader, 2) == steps(other, 2)
    every = texts(loader.read_all())
    assert "".join(every) == "".join(KEPT) or "dropped" in "".join(every)
    assert texts(loader.first(2)) == every[:2]
    assert texts(loader.first(1000)) == every
    assert texts(loader.read_all(limit=3)) == texts(loader.first(len(texts(loader.read_all(limit=3)))))
    assert loader.read_all(limit=0) == loader.first(0) == []
    assert steps(loader, 4) == steps(other, 4)


def test_peeking_does_not_count_and_reading_all_does():
    loader = rows_of()
    loader.first(8)
    assert loader.counts == RowCounts()
    loader.read_all(limit=6)
    assert loader.counts == RowCounts(rows=6, skipped=1, dropped=1, tokens=8, trained_tokens=4)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_stopped_after_any_step_it_goes_on_with_the_same_items(load: Callable[..., Loader[Sample]], shuffle: bool):
    whole = steps(load(shuffle=shuffle, seed=2), 24)
    loader = load(shuffle=shuffle, seed=2)
    for number in range(18):
        # A checkpoint keeps the state as JSON.
        state = json.loads(json.dumps(loader.state_dict()))
        resumed = load(shuffle=shuffle, seed=2)
        resumed.load_state_dict(state)
        assert (resumed.state_dict(), resumed.epoch, resumed.counts) == (state, loader.epoch, loader.counts)
        assert steps(resumed, 6) == whole[number : number + 6]
        loader.next_step()
    assert loader.epoch > 2


@pytest.mark.parametrize("load", LOADERS)
def test_the_global_order_is_kept_under_another_world_size(load: Callable[..., Loader[Sample]]):
    whole = steps(load(seed=5), 15)
    states: list[Any] = [None]
    seen: list[list[str]] = []
    for world_size in (1, 2, 3, 1, 3):
        loaders = [load(seed=5, rank=rank, world_size=world_size) for rank in range(world_size)]
        for rank, loader in enumerate(loaders):
            if seen:
                loader.load_state_dict(states[rank % len(states)])
        seen += shared_steps(loaders, 3)
        states = [json.loads(json.dumps(loader.state_dict())) for loader in loaders]
        assert all(state == states[0] for state in states)
    assert seen == whole


def test_a_rank_without_a_share_gets_nothing():
    assert [samples_of(rows_per_step=2, rank=rank, world_size=3).next_step() != [] for rank in range(3)] == [
        True, True, False
    ]  # fmt: skip


@pytest.mark.parametrize("num_workers", [1, 2])
def test_processes_that_encode_change_nothing(num_workers: int):
    words = [f"{number:03}" for number in range(150)] + WORDS
    whole = steps(rows_of(words, rows_per_step=8), 50)
    loader = rows_of(words, rows_per_step=8, num_workers=num_workers)
    assert steps(loader, 23) == whole[:23]
    state = json.loads(json.dumps(loader.state_dict()))
    # What was read ahead is not counted: the state is that of a loader that reads nothing ahead.
    alone = rows_of(words, rows_per_step=8)
    steps(alone, 23)
    assert state == alone.state_dict()
    loader.close()
    assert steps(loader, 3) == whole[23:26]
    loader.close()
    resumed = rows_of(words, rows_per_step=8, num_workers=num_workers)
    resumed.load_state_dict(state)
    assert steps(resumed, 27) == whole[23:]
    resumed.close()


def test_a_data_set_may_decide_its_order():
    words = ["a", "bb", "dropped", "ccc"]
    backwards = Backwards(words)
    loader = rows_of(data=backwards, rows_per_step=2)
    assert steps(loader, 4) == [["ccc", "bb"], ["a", "ccc"], ["bb", "ccc"], ["bb", "a"]]
    # 4 rows, then 3.
    assert (loader.num_steps(1), loader.num_steps(2), loader.num_steps(1.5)) == (2, 4, 3)
    loader = samples_of(words, rows_per_step=2, order=backwards.order)
    assert steps(loader, 4) == [["ccc", "bb"], ["a", "ccc"], ["bb", "ccc"], ["bb", "a"]]
    # 3 items, then 2.
    assert (loader.num_steps(1), loader.num_steps(2), loader.num_steps(1.5)) == (2, 3, 2)


def test_an_order_of_rows_is_told_the_tokens_of_each_row():
    told: list[Any] = []

    def order(epoch: int, seed: int, shuffle: bool, lengths: np.ndarray | None) -> np.ndarray:
        assert lengths is not None
        told.append((epoch, seed, shuffle, lengths.tolist()))
        return np.array([3, 0])

    loader = samples_of(["aaaaa", "dropped", "faulty", "bbb"], max_length=5, seed=7, shuffle=False, order=order)
    assert steps(loader, 1)[0][:2] == ["bbb", "aaaaa"]
    assert told[0] == (0, 7, False, [5, 0, 0, 3])


def test_items_of_a_divided_row_follow_one_another_in_an_order_of_rows():
    loader = samples_of(["aabbc", "dd"], max_length=2, split=True, rows_per_step=4, order=lambda *_: np.array([1, 0]))
    assert steps(loader, 1) == [["dd", "aa", "bb", "c"]]


@pytest.mark.parametrize("load", [samples_of, rows_of])
def test_dropping_everything_is_an_error_that_says_why(load: Callable[..., Loader[Sample]]):
    with pytest.raises(DataError, match=r"Nothing is left .* Of 3 rows: 2 longer than data\.max_length .*, 1 faulty"):
        load(["dropped", "faulty", "dropped"]).next_step()


@pytest.mark.parametrize("load", [samples_of, rows_of])
def test_no_rows_is_an_error(load: Callable[..., Loader[Sample]]):
    with pytest.raises(DataError, match="no rows"):
        load([])


def test_a_faulty_row_is_named_when_it_is_reached_and_again():
    loader = rows_of(["a", "b", "c", "faulty", "d"], errors=RowErrors("raise", 0), shuffle=False, rows_per_step=2)
    assert steps(loader, 1) == [["a", "b"]]
    state = loader.state_dict()
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"words\.txt:4: faulty \(or leave faulty rows out: --set data\.on_error=skip"
        ):
            loader.next_step()
        assert loader.state_dict() == state


def test_faulty_rows_count_once_against_the_limit(tmp_path: Path):
    errors = RowErrors("skip", 2, tmp_path / "skipped.jsonl")
    loader = rows_of(errors=errors, rows_per_step=10)
    steps(loader, 5)
    assert (errors.num_skipped, loader.counts.skipped) == (2, 2 * round(loader.epoch))
    told = [json.loads(line)["error"] for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert sorted(told) == ["words.txt:6: faulty", "words.txt:9: unreadable"]
    resumed_errors = RowErrors("skip", 2, tmp_path / "more.jsonl")
    resumed = rows_of(errors=resumed_errors, rows_per_step=10)
    resumed.load_state_dict(loader.state_dict())
    steps(resumed, 3)
    assert resumed_errors.num_skipped == 2
    assert not (tmp_path / "more.jsonl").exists()


def test_too_many_faulty_rows_stop_the_run():
    loader = rows_of(errors=RowErrors("skip", 1), shuffle=False, rows_per_step=9)
    with pytest.raises(DataError, match=r"2 faulty rows, more than data\.max_skipped=1"):
        loader.next_step()


def test_a_position_in_other_rows_is_refused():
    with pytest.raises(CheckpointError, match="was saved with num_rows=14, this run has 2"):
        rows_of(["a", "b"]).load_state_dict(rows_of().state_dict())
    with pytest.raises(CheckpointError, match="was saved with num_items=10, this run has 2"):
        samples_of(["a", "b"]).load_state_dict(samples_of().state_dict())
