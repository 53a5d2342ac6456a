"""LLaMA-Factory's `dataset_info.json` is understood as it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmkit.data.contract import Dataset
from llmkit.data.datasets import llamafactory
from llmkit.data.datasets.llamafactory_rows import chosen_rows
from llmkit.errors import DataError
from llmkit.types import Message, Record, ToolCall

Opened = Callable[..., Dataset]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens the entry `set` of a `dataset_info.json` with the given rows in `rows.json`."""

    def open_entry(entry: Any, *rows: dict[str, Any], **options: Any) -> Dataset:
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        (tmp_path / "dataset_info.json").write_text(json.dumps({"other": {}, "set": entry}, indent=2))
        return llamafactory.build(llamafactory.Config(path=str(tmp_path), dataset="set", **options))

    return open_entry


def first(dataset: Dataset) -> Record:
    record = dataset[0]
    assert isinstance(record, Record)
    return record


def test_alpaca_is_the_default(opened: Opened):
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "system": "s", "history": [["a", "b"]]}
    record = first(opened({"file_name": "rows.json"}, row))
    assert record.messages == (Message("user", "Add.\n1 2"), Message("assistant", "3"))
    # Columns that the entry does not name are not read: rewards get them.
    assert record.extra == {"system": "s", "history": [["a", "b"]]}


def test_alpaca_with_every_column(opened: Opened):
    columns = {
        "prompt": "p",
        "query": "q",
        "response": "r",
        "system": "s",
        "history": "h",
        "tools": "t",
        "kto_tag": "k",
    }
    row = {"p": "Add.", "q": "1 2", "r": "3", "s": "Brief.", "h": [["a", "b"]], "t": '[{"name": "add"}]', "k": True}
    record = first(opened({"file_name": "rows.json", "columns": columns}, row))
    assert [message.text for message in record.messages] == ["Brief.", "a", "b", "Add.\n1 2", "3"]
    assert (record.label, record.extra) == (True, {})
    assert record.tools == '[{"type": "function", "function": {"name": "add"}}]'


def test_a_prompt_and_nothing_else_is_text_to_train_on(opened: Opened):
    record = first(opened({"file_name": "rows.json", "columns": {"prompt": "content"}}, {"content": "Once."}))
    assert (record.text, record.messages) == ("Once.", ())


def test_ranking_in_both_formats(opened: Opened):
    alpaca = {
        "file_name": "rows.json",
        "ranking": True,
        "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    }
    record = first(opened(alpaca, {"q": "?", "good": "yes", "bad": "no"}))
    assert (record.chosen[0].text, record.rejected[0].text) == ("yes", "no")
    columns = {"messages": "chat", "chosen": "good", "rejected": "bad"}
    sharegpt = {"file_name": "rows.json", "ranking": True, "formatting": "sharegpt", "columns": columns}
    turns = [{"from": tag, "value": text} for tag, text in (("human", "?"), ("gpt", "yes"), ("gpt", "no"))]
    record = first(opened(sharegpt, {"chat": turns[:1], "good": turns[1], "bad": turns[2]}))
    assert (record.chosen[0].text, record.rejected[0].text) == ("yes", "no")
    # Without ranking the pair is no concern of the set.
    plain = {"file_name": "rows.json", "columns": {"prompt": "q", "response": "good", "rejected": "bad"}}
    assert first(opened(plain, {"q": "?", "good": "yes", "bad": "no"})).chosen == ()
    assert first(
        opened({"file_name": "rows.json", "ranking": True}, {"instruction": "?", "chosen": "y", "rejected": "n"})
    )


def test_tags(opened: Opened):
    tags = {
        "role_tag": "who", "content_tag": "says", "user_tag": "U", "assistant_tag": "A", "observation_tag": "O",
        "function_tag": "F", "system_tag": "S",
    }  # fmt: skip
    turns = [("S", "s"), ("U", "q"), ("F", '{"name": "f", "arguments": {}}'), ("O", "2"), ("A", "a")]
    row = {"chat": [{"who": who, "says": says} for who, says in turns], "images": []}
    for formatting in ("sharegpt", "openai"):
        entry = {"file_name": "rows.json", "formatting": formatting, "columns": {"messages": "chat"}, "tags": tags}
        assert first(opened(entry, row)).messages == (
            Message("system", "s"),
            Message("user", "q"),
            Message("assistant", "", tool_calls=(ToolCall("f", "{}"),)),
            Message("tool", "2"),
            Message("assistant", "a"),
        )


def test_openais_form(opened: Opened):
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    entry = {"file_name": "rows.json", "formatting": "openai", "columns": {"messages": "messages", "kto_tag": "good"}}
    record = first(opened(entry, {"messages": messages, "good": 0}))
    assert record.messages[1].tool_calls == (ToolCall("f", "{}"),)
    assert record.label is False


def test_media_are_found_beside_the_file(opened: Opened, tmp_path: Path):
    entry = {
        "file_name": "rows.json",
        "formatting": "sharegpt",
        "columns": {"messages": "m", "images": "images", "videos": "v"},
    }
    row = {"m": [{"from": "human", "value": "<image><video>?"}], "images": ["img/a.png"], "v": ["b.mp4"]}
    assert [part.url for part in first(opened(entry, row)).messages[0].media] == [
        str(tmp_path / "img" / "a.png"),
        str(tmp_path / "b.mp4"),
    ]


def test_a_folder_is_all_its_files(opened: Opened, tmp_path: Path):
    (tmp_path / "parts").mkdir()
    for name in ("train", "test"):
        (tmp_path / "parts" / f"{name}.jsonl").write_text(json.dumps({"instruction": name, "output": "a"}) + "\n")
    dataset = opened({"file_name": "parts"})
    assert [dataset[index].messages[0].text for index in range(len(dataset))] == ["test", "train"]  # type: ignore[union-attr]


def test_a_set_of_the_hub_with_subset_and_split(opened: Opened, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"question": "q", "answer": "a"}])
    datasets.DatasetDict({"validation": table}).save_to_disk(tmp_path / "repository")
    entry = {
        "hf_hub_url": str(tmp_path / "repository"),
        "ms_hub_url": "elsewhere/too",
        "split": "validation",
        "columns": {"prompt": "question", "response": "answer"},
    }
    record = first(opened(entry))
    assert record.messages == (Message("user", "q"), Message("assistant", "a"))


@pytest.mark.parametrize(("num_samples", "counts"), [(3, {1}), (10, {1}), (25, {2, 3}), (20, {2})])
def test_num_samples_of_ten_rows(num_samples: int, counts: set[int]):
    order = chosen_rows(10, num_samples, seed=1)
    assert len(order) == num_samples
    assert {order.count(number) for number in order} == counts
    assert order == chosen_rows(10, num_samples, seed=1)
    if num_samples in (3, 25):
        assert any(chosen_rows(10, num_samples, seed=seed) != order for seed in range(2, 5))
    assert chosen_rows(10, None, seed=1) == range(10)


def test_limit_and_fingerprint(opened: Opened):
    rows = [{"instruction": str(number), "output": "a"} for number in range(4)]
    entry = {"file_name": "rows.json"}
    prints = {
        "all": opened(entry, *rows).fingerprint(),  # type: ignore[attr-defined]
        "limit": opened(entry, *rows, limit=2).fingerprint(),  # type: ignore[attr-defined]
        "samples": opened({**entry, "num_samples": 2}, *rows).fingerprint(),  # type: ignore[attr-defined]
        "columns": opened({**entry, "columns": {"prompt": "instruction", "response": "output"}}, *rows).fingerprint(),  # type: ignore[attr-defined]
        "rows": opened(entry, *rows[:3]).fingerprint(),  # type: ignore[attr-defined]
    }
    assert len(set(prints.values())) == len(prints)
    assert opened(entry, *rows).fingerprint() == prints["all"]  # type: ignore[attr-defined]
    assert len(opened(entry, *rows, limit=2)) == 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"file_nam": "rows.json"},
            "file_nam: unknown key. Did you mean 'file_name'? Known keys: file_name, hf_hub_url",
        ),
        ({"file_name": "rows.json", "columns": {"promt": "q"}}, "columns.promt: unknown key. Did you mean 'prompt'?"),
        ({"file_name": "rows.json", "tags": {"role": "q"}}, "tags.role: unknown key. Did you mean 'role_tag'?"),
        ({"file_name": "rows.json", "columns": ["q"]}, "columns is a list; it must be an object"),
        ({"file_name": "rows.json", "columns": {"prompt": 1}}, "columns.prompt is a number; it must be text"),
        ({"file_name": "rows.json", "ranking": "yes"}, "ranking is text; it must be true or false"),
        ({"file_name": "rows.json", "num_samples": True}, "num_samples is a boolean; it must be a whole number"),
        ({"file_name": "rows.json", "num_samples": 0}, "num_samples is 0; it must be at least 1"),
        (
            {"file_name": "rows.json", "formatting": "sharegp"},
            "formatting is 'sharegp'; it may be alpaca, sharegpt, openai. Did you mean 'sharegpt'?",
        ),
        (
            {"file_name": "rows.json", "columns": {"response": "a"}},
            "columns.prompt is not named, and formatting=alpaca needs it",
        ),
        (
            {"file_name": "rows.json", "ranking": True, "columns": {"prompt": "q", "chosen": "a"}},
            "ranking is true, and columns.rejected is not named",
        ),
        (
            {"file_name": "rows.json", "formatting": "sharegpt", "columns": {"tools": "t"}},
            "columns.messages is not named; its formatting needs it",
        ),
        (
            {"file_name": "rows.json", "formatting": "openai", "ranking": True},
            "ranking=true with formatting=openai is not known; use formatting=sharegpt with tags",
        ),
        ({"file_name": "gone.json"}, "file_name is 'gone.json', and there is no "),
        (
            {"ms_hub_url": "a/b"},
            "its rows are on ModelScope (ms_hub_url: a/b); load them into a file beside dataset_info.json "
            "and name it in file_name",
        ),
        (
            {"script_url": "a.py"},
            "its rows are made by a script, and llmkit runs no scripts that come with data (script_url: a.py)",
        ),
        ({"cloud_file_name": "s3://a"}, "its rows are in a cloud's storage (cloud_file_name: s3://a)"),
        ({"formatting": "alpaca"}, "the entry has neither file_name nor hf_hub_url, so it has no rows"),
        ([], "must be an object, this is a list"),
    ],
)
def test_bad_entries_are_named_with_their_line(opened: Opened, tmp_path: Path, entry: Any, message: str):
    with pytest.raises(DataError) as caught:
        opened(entry)
    text = str(caught.value)
    line = 3 if isinstance(entry, dict) else 1
    start = f"{tmp_path / 'dataset_info.json'}:{line}: 'set'"
    assert text.startswith(start)
    assert text.removeprefix(start).lstrip(": ").startswith(message)


def test_what_is_not_there_is_named(tmp_path: Path):
    config = llamafactory.Config(path=str(tmp_path), dataset="set")
    with pytest.raises(DataError, match=r"no dataset_info\.json there; name its directory"):
        llamafactory.build(config)
    (tmp_path / "dataset_info.json").write_text('{"sets": {}, "b": {}}')
    with pytest.raises(DataError, match=r"no entry 'set'\. Did you mean 'sets'\? Entries: sets, b$"):
        llamafactory.build(config)
    (tmp_path / "dataset_info.json").write_text('{"set": {},\n}')
    with pytest.raises(DataError, match=r"dataset_info\.json:2:1: not valid JSON"):
        llamafactory.build(config)
    (tmp_path / "dataset_info.json").write_text("[]")
    with pytest.raises(DataError, match="must be an object of entries, this is a list"):
        llamafactory.build(config)
    (tmp_path / "dataset_info.json").write_bytes(b'{"\xe9": {}}')
    with pytest.raises(DataError, match=r"dataset_info\.json:1:3: byte 2 \(0xe9\) is not UTF-8"):
        llamafactory.build(config)


def test_a_bad_row_names_the_entry(opened: Opened, tmp_path: Path):
    dataset = opened({"file_name": "rows.json"}, {"instruction": "q", "output": "a"}, {"output": "a"})
    with pytest.raises(DataError) as caught:
        dataset[1]
    assert str(caught.value).startswith(f"{tmp_path / 'rows.json'}:1: no 'instruction'; found output.")
    assert str(caught.value).endswith(f"(columns and tags are those of {tmp_path / 'dataset_info.json'}:3: 'set')")
