"""The data set `mixture`: several sources as one."""

import json
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmkit import plugins
from llmkit.config.resolve import resolve
from llmkit.config.runs import SFTRun
from llmkit.data.contract import Fingerprinted, Ordered
from llmkit.data.mixtures.mixing import shuffled_passes
from llmkit.data.mixtures.mixture_data import Mixture
from llmkit.data.mixtures.mixture_stream import MixtureStream
from llmkit.errors import ConfigError, DataError


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes rows to a JSON Lines file in the working directory."""
    monkeypatch.chdir(tmp_path)

    def file(name: str, *rows: dict[str, Any]) -> str:
        Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return name

    return file


@pytest.fixture
def chats(write: Callable[..., str]) -> str:
    """Three rows of messages."""
    turns = [(("user", f"q{n}"), ("assistant", f"chat {n}")) for n in range(3)]
    return write("chats.jsonl", *({"messages": [{"role": r, "content": text} for r, text in row]} for row in turns))


@pytest.fixture
def pairs(write: Callable[..., str]) -> str:
    """Two rows of prompt and completion."""
    return write("pairs.jsonl", *({"prompt": f"q{n}", "completion": f"pair {n}"} for n in range(2)))


def mixture(*sources: Any, **options: Any) -> Any:
    """Resolves and builds the data set as a run does."""
    sources = tuple({"dataset": {"name": "files", "path": one}} if isinstance(one, str) else one for one in sources)
    given = {"dataset": ("dataset", {"name": "mixture", "sources": list(sources), **options})}
    run = resolve(SFTRun, command="train/sft", options=given, environ={}).run
    return plugins.load("datasets", "mixture").build(run.dataset)


def answers(data: Any, rows: Any) -> list[str]:
    return [data[int(row)].messages[-1].text for row in rows]


def test_every_source_is_read_by_its_own_formatter_and_keeps_its_places(chats, pairs):
    data = mixture(chats, pairs)
    assert isinstance(data, Mixture)
    assert answers(data, range(5)) == ["chat 0", "chat 1", "chat 2", "pair 0", "pair 1"]
    assert [str(data[row].source) for row in (2, 3)] == ["chats.jsonl:3", "pairs.jsonl:1"]
    for row in (-1, 5):
        with pytest.raises(IndexError):
            data[row]


def test_a_file_with_sources_resolves_and_the_shares_are_those_of_the_weights(chats, pairs, tmp_path):
    Path("mix.yaml").write_text(
        "dataset:\n  name: mixture\n  strategy: interleave\n  sources:\n"
        "    - dataset: {name: files, path: chats.jsonl}\n      formatter: messages\n      weight: 0.5\n"
        "    - dataset: {name: files, path: pairs.jsonl}\n      weight: 0.5\n      limit: 1\n"
    )
    resolved = resolve(
        SFTRun, command="train/sft", files=[Path("mix.yaml")], overrides=["dataset.sources.0.weight=1"], environ={}
    )
    data = plugins.load("datasets", "mixture").build(resolved.run.dataset)
    assert len(data) == 4
    # Keys: chats have 0, 1, 2; the one pair comes at 0 and again at 2. The chats are through at 3.
    assert answers(data, data.order(0, 0, False)) == ["chat 0", "pair 0", "chat 1", "chat 2", "pair 0"]


def test_concatenated_rows_are_shuffled_as_one_data_set(chats, pairs):
    data = mixture(chats, pairs)
    assert isinstance(data, Ordered)
    assert not data.needs_lengths
    assert data.order(3, 7, False).tolist() == [0, 1, 2, 3, 4]
    assert data.order(3, 7, True).tolist() == shuffled_passes(5, 0, 1, (7, 3)).tolist()


def test_each_source_is_shuffled_anew_in_every_epoch_and_every_repeat(chats):
    many = {"dataset": {"name": "arithmetic", "size": 60}}
    few = {"dataset": {"name": "arithmetic", "size": 12}}
    data = mixture(many, few, strategy="interleave")
    epochs = [data.order(epoch, 0, True) for epoch in (0, 1)]
    orders = [tuple(epoch[epoch < 60]) for epoch in epochs]
    orders += [tuple(rows) for epoch in epochs for rows in epoch[epoch >= 60].reshape(5, 12)]
    assert len(set(orders)) == 12
    assert all(sorted(order) == sorted(orders[0 if len(order) == 60 else 2]) for order in orders)
    assert data.order(1, 0, True).tolist() == epochs[1].tolist()
    assert data.order(1, 1, True).tolist() != epochs[1].tolist()


def test_stopping_rules_decide_the_length_of_an_epoch():
    sources = [
        {"dataset": {"name": "arithmetic", "size": size}, "weight": weight} for size, weight in ((30, 3), (5, 1))
    ]
    lengths = {
        rule: len(mixture(*sources, strategy="interleave", stopping=rule).order(0, 0, True))
        for rule in ("first_exhausted", "all_exhausted", "without_replacement")
    }
    # The first source is through at 10, the second at 5, where the first is asked before it: 16 and 5, or 30 and 10.
    assert lengths == {"first_exhausted": 21, "all_exhausted": 40, "without_replacement": 35}


def test_weights_by_tokens_need_the_lengths_and_share_tokens(chats, pairs):
    data = mixture(chats, pairs, strategy="interleave", weights_by="tokens")
    assert data.needs_lengths
    with pytest.raises(DataError, match=r"weights_by=tokens needs the tokens .* --set dataset\.weights_by=rows"):
        data.order(0, 0, True)
    # Chats of 10 tokens have the keys 0, 10, 20; pairs of 15 have 0, 15.
    assert data.order(0, 0, False, np.array([10, 10, 10, 15, 15])).tolist() == [0, 3, 1, 4, 2]
    with pytest.raises(DataError, match="no source of the mixture has a row with tokens"):
        data.order(0, 0, False, np.zeros(5, np.int64))


def test_a_source_without_tokens_is_told(chats, pairs, caplog):
    data = mixture(chats, pairs, strategy="interleave", weights_by="tokens")
    assert data.order(0, 0, False, np.array([10, 10, 10, 0, 0])).tolist() == [0, 1, 2]
    assert "dataset.sources.1 takes no part in the mixture: no row of it has tokens" in caplog.text


def test_a_mixture_of_mixtures_keeps_the_shares_of_both(chats, pairs):
    inner = {"name": "mixture", "strategy": "interleave",
             "sources": [{"dataset": {"name": "files", "path": chats}, "weight": 2},
                         {"dataset": {"name": "files", "path": pairs}, "weight": 1}]}  # fmt: skip
    outer = mixture({"dataset": inner}, {"dataset": {"name": "arithmetic", "size": 40}}, strategy="interleave")
    assert len(outer) == 45
    order = outer.order(0, 0, True)
    # An inner epoch: chats are through at 3/2, pairs at 2: four chats and two pairs. 40 rows are 6 and two thirds.
    owners = Counter("chats" if row < 3 else "pairs" if row < 5 else "arithmetic" for row in order)
    assert owners["arithmetic"] == 40
    assert owners["chats"] + owners["pairs"] == 40
    assert 12 <= owners["pairs"] <= 14


def test_the_limit_takes_the_first_rows_or_all(chats, pairs):
    data = mixture({"dataset": {"name": "files", "path": chats}, "limit": 2},
                   {"dataset": {"name": "files", "path": pairs}, "limit": 9})  # fmt: skip
    assert answers(data, range(len(data))) == ["chat 0", "chat 1", "pair 0", "pair 1"]


def test_one_source_twice_is_two_sources(pairs):
    data = mixture(pairs, pairs, strategy="interleave")
    assert answers(data, data.order(0, 0, False)) == ["pair 0", "pair 0", "pair 1", "pair 1"]


def test_a_faulty_row_is_told_at_its_place(chats, write):
    write("torn.jsonl", {"prompt": "q", "completion": "a"}, {"completion": "a"})
    data = mixture(chats, "torn.jsonl")
    assert answers(data, [3]) == ["a"]
    with pytest.raises(DataError, match=r"^torn\.jsonl:2"):
        data[4]


def test_a_format_that_is_not_clear_is_asked_for_by_the_sources_own_option(chats, write):
    write("odd.jsonl", {"colour": "red"})
    with pytest.raises(DataError, match=r"odd\.jsonl:1.*--set dataset\.sources\.1\.formatter\.name="):
        mixture(chats, "odd.jsonl")
    inner = {"name": "mixture", "sources": [{"dataset": {"name": "files", "path": "odd.jsonl"}}]}
    with pytest.raises(DataError, match=r"--set dataset\.sources\.1\.dataset\.sources\.0\.formatter\.name="):
        mixture(chats, {"dataset": inner})


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ("[]", "mix.yaml:3:12: dataset.sources: must have at least 1 item, got the list []"),
        ("[{dataset: arithmetic, weight: 0}]", "mix.yaml:3:43: dataset.sources.0.weight: must be greater than 0, got"),
        ("[{dataset: arithmetic, weight: -1}]", "dataset.sources.0.weight: must be greater than 0, got -1"),
        ("[{dataset: arithmetic, weight: .inf}]", "dataset.sources.0.weight: must be "),
        ("[{dataset: arithmetic, limit: 0}]", "mix.yaml:3:42: dataset.sources.0.limit: must be at least 1, got 0"),
        ("[{dataset: arithmetik}]", "mix.yaml:3:23: dataset.sources.0.dataset.name: No dataset named 'arithmetik'."),
        ("[{dataset: arithmetic, formatter: alpaka}]", "mix.yaml:3:46: dataset.sources.0.formatter.name: No formatter"),
        ("[{weight: 1}]", "mix.yaml:3:13: dataset.sources.0.dataset: not set; choose one with --set dataset.sources.0"),
        ("[{dataset: arithmetic, wieght: 1}]", "mix.yaml:3:35: dataset.sources.0.wieght: unknown key. Did you mean"),
        ("[arithmetic]", "mix.yaml:3:13: dataset.sources.0: must be a section, got the text 'arithmetic'"),
    ],
)  # fmt: skip
def test_bad_sources_are_told_where_they_are_written(tmp_path, monkeypatch, sources: str, message: str):
    monkeypatch.chdir(tmp_path)
    Path("mix.yaml").write_text(f"dataset:\n  name: mixture\n  sources: {sources}\n")
    with pytest.raises(ConfigError) as caught:
        resolve(SFTRun, command="train/sft", files=[Path("mix.yaml")], environ={})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mixture_inside_has_no_first_rows(pairs):
    inner = {"name": "mixture", "sources": [{"dataset": {"name": "files", "path": pairs}}]}
    with pytest.raises(DataError, match=r"^dataset\.sources\.0\.limit: a mixture has no first rows; limit its sources"):
        mixture({"dataset": inner, "limit": 1})


def test_options_without_effect_are_told(chats, pairs, caplog):
    mixture({"dataset": {"name": "files", "path": chats}, "weight": 2}, pairs, stopping="first_exhausted")
    assert [record.getMessage().partition(" has")[0] for record in caplog.records] == [
        "dataset.stopping", "dataset.sources.*.weight"
    ]  # fmt: skip


def test_the_fingerprint_is_that_of_the_rows_and_of_how_they_are_read(chats, pairs, write):
    def fingerprint(*sources: Any, **options: Any) -> str:
        data = mixture(*sources, **options)
        assert isinstance(data, Fingerprinted)
        return data.fingerprint()

    first = fingerprint(chats, pairs)
    assert fingerprint(chats, pairs, strategy="interleave", stopping="first_exhausted") == first
    assert (
        fingerprint(chats, {"dataset": {"name": "files", "path": pairs}, "weight": 3}, strategy="interleave") == first
    )
    others = [
        fingerprint(pairs, chats),
        fingerprint(chats),
        fingerprint(chats, {"dataset": {"name": "files", "path": pairs}, "limit": 1}),
        fingerprint(
            chats,
            {
                "dataset": {"name": "files", "path": pairs},
                "formatter": {"name": "prompt_completion", "answer_column": "completion"},
            },
        ),
    ]
    write("pairs.jsonl", {"prompt": "q", "completion": "another"}, {"prompt": "q", "completion": "b"})
    others.append(fingerprint(chats, pairs))
    assert len({first, *others}) == len(others) + 1


def test_rows_that_nobody_can_identify_give_no_fingerprint(pairs):
    known = mixture(pairs)
    unknown = [replace(known.sources[0], data=[known[0], known[1]])]
    assert isinstance(Mixture(known.sources, known.rules), Fingerprinted)
    assert not isinstance(Mixture(unknown, known.rules), Fingerprinted)
    assert not isinstance(MixtureStream(unknown, known.rules), Fingerprinted)
    assert not isinstance(Mixture([replace(known.sources[0], format=None)], known.rules), Fingerprinted)


def test_it_travels_to_other_processes(chats, pairs):
    data = mixture(chats, {"dataset": {"name": "files", "path": pairs}, "limit": 1}, strategy="interleave")
    copy = pickle.loads(pickle.dumps(data))
    assert [copy[row] for row in range(4)] == [data[row] for row in range(4)]
    assert copy.fingerprint() == data.fingerprint()
    assert copy.order(1, 2, True).tolist() == data.order(1, 2, True).tolist()


def test_one_stream_among_the_sources_or_the_wish_for_one_makes_a_stream(chats, pairs):
    streamed = {"dataset": {"name": "files", "path": pairs, "streaming": True}}
    for data in (mixture(chats, streamed), mixture(chats, pairs, streaming=True)):
        assert isinstance(data, MixtureStream)
        assert isinstance(data, Fingerprinted)
        assert [record.messages[-1].text for record in data.open()] == [
            "chat 0",
            "chat 1",
            "chat 2",
            "pair 0",
            "pair 1",
        ]
