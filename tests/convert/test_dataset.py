"""Rows converted by the command: what comes back is what went in, and what cannot be held is listed."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmkit import cli
from llmkit.convert.datasets.expression import Condition
from llmkit.errors import ConfigError

ROWS = [
    {
        "messages": [{"role": "user", "content": f"Wie viel ist {number} + 1?"}, {"role": "assistant", "content": "…"}],
        "level": number,
        "lang": "de" if number % 2 else "en",
    }
    for number in range(40)
]


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    return write(tmp_path / "chats.jsonl", ROWS)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def convert(*arguments: object) -> int:
    return cli.run(["convert", "dataset", *map(str, arguments)])


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".arrow"])
def test_every_type_gives_back_what_it_got(suffix: str, chats: Path, tmp_path: Path):
    other = tmp_path / f"other{suffix}"
    assert convert(chats, "--output", other) == 0
    assert convert(other, "--output", tmp_path / "back.jsonl") == 0
    assert read(tmp_path / "back.jsonl") == ROWS


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_text_tables_hold_conversations_as_json(suffix: str, chats: Path, tmp_path: Path):
    assert convert(chats, "--output", tmp_path / f"t{suffix}") == 0
    assert convert(tmp_path / f"t{suffix}", "--to", "messages", "--output", tmp_path / "back.jsonl") == 0
    back = read(tmp_path / "back.jsonl")
    assert [row["messages"] for row in back] == [row["messages"] for row in ROWS]
    assert [row["level"] for row in back] == [str(row["level"]) for row in ROWS]


def test_columns_that_later_rows_have_are_kept(tmp_path: Path):
    rows = [{"a": "x"}] * 1500 + [{"a": "y", "b": 2}]
    path = write(tmp_path / "rows.jsonl", rows)
    for suffix in (".parquet", ".csv"):
        assert convert(path, "--output", tmp_path / f"t{suffix}") == 0
        assert convert(tmp_path / f"t{suffix}", "--output", tmp_path / "back.jsonl", "--overwrite") == 0
        assert str(read(tmp_path / "back.jsonl")[-1]["b"]) == "2"


@pytest.mark.parametrize("form", ["sharegpt", "alpaca", "prompt_completion"])
def test_another_format_and_back(form: str, chats: Path, tmp_path: Path):
    assert convert(chats, "--to", form, "--output", tmp_path / "other.jsonl") == 0
    line = [tmp_path / "other.jsonl", "--from", form, "--to", "messages", "--output", tmp_path / "back.jsonl"]
    assert convert(*line) == 0
    assert read(tmp_path / "back.jsonl") == ROWS


def test_rows_that_cannot_be_held_are_listed(chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [*ROWS[:3], {"messages": [*ROWS[0]["messages"], {"role": "assistant", "content": "twice"}]}]
    path, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    assert convert(path, "--to", "alpaca", "--output", out) == 2
    err = capsys.readouterr().err
    assert "1 of 4 rows cannot be converted" in err
    assert "rows.jsonl:4" in err
    assert not out.exists()
    assert convert(path, "--to", "alpaca", "--output", out, "--skip-faulty", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["checks"]["faulty"] == 1
    assert len(read(out)) == 3
    assert json.loads((tmp_path / "out.jsonl.conversion.json").read_text())["inputs"][str(path)]["sha256"]


def test_splits_divide_every_row_once(chats: Path, tmp_path: Path):
    line = [chats, "--split", "train=0.7", "--split", "test=0.3", "--seed", 3, "--output", tmp_path / "o" / "d.jsonl"]
    assert convert(*line) == 0
    train, test = (read(tmp_path / "o" / f"d-{name}.jsonl") for name in ("train", "test"))
    assert sorted(row["level"] for row in train + test) == list(range(40))
    assert 20 < len(train) < 36


def test_a_sample_is_drawn_once_of_what_is_left(chats: Path, tmp_path: Path):
    line = ["--where", "lang == 'en'", "--sample", 8, "--seed", 1, "--output"]
    for name in ("one.jsonl", "two.jsonl"):
        assert convert(chats, *line, tmp_path / name) == 0
    levels = [row["level"] for row in read(tmp_path / "one.jsonl")]
    assert levels == [row["level"] for row in read(tmp_path / "two.jsonl")]
    assert len(set(levels)) == 8
    assert levels == sorted(levels)
    assert all(level % 2 == 0 for level in levels)


def test_repeated_rows_and_rows_of_other_lengths_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [{"text": "aa"}, {"text": "bbbb"}, {"text": "aa"}, {"text": "c"}, {"text": "bbbb"}]
    path = write(tmp_path / "rows.jsonl", rows)
    assert convert(path, "--unique", "--min-characters", 2, "--output", tmp_path / "out.jsonl", "--json") == 0
    assert read(tmp_path / "out.jsonl") == rows[:2]
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert (checks["read"], checks["filtered"], checks["repeated"]) == (5, 1, 2)


def test_token_stores_are_written_and_read(tmp_path: Path):
    rows = [{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9], "loss_weights": [0.0, 1.0]}]
    path = write(tmp_path / "tokens.jsonl", rows)
    assert convert(path, "--output", tmp_path / "t" / "tokens.bin") == 0
    assert convert(tmp_path / "t" / "tokens.bin", "--output", tmp_path / "back.jsonl") == 0
    # Beside a row that has weights every row gets them; the first token has none before it to be predicted from.
    assert read(tmp_path / "back.jsonl") == [rows[0] | {"loss_weights": [0.0, 1.0, 1.0]}, rows[1]]


def test_outputs_and_inputs_are_not_lost(chats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert convert(chats, "--output", chats, "--overwrite") == 2
    assert "what is converted" in capsys.readouterr().err
    assert convert(chats, "--output", tmp_path / "o.csv") == 0
    before = (tmp_path / "o.csv").read_bytes()
    assert convert(chats, "--output", tmp_path / "o.csv") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert convert(chats, "--where", "level > 100", "--output", tmp_path / "o.csv", "--overwrite") == 2
    assert "no row is left" in capsys.readouterr().err
    assert (tmp_path / "o.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chats.jsonl", "o.csv", "o.csv.conversion.json"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--output", "x.doc"], "does not say what to write"),
        (["--split", "train=0.9", "--output", "x.csv"], "at least two"),
        (["--split", "a=0.9", "--split", "b=0.2", "--output", "x.csv"], "add up to 1"),
        (["--from", "alpaca", "--output", "x.csv"], "no effect without --to"),
        (["--to", "alpacca", "--output", "x.csv"], "alpaca"),
        (["--where", "__import__('os')", "--output", "x.csv"], "only these can be called"),
        (["--output", "x.bin"], "cannot be converted"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], what: str, chats: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(chats.parent)
    assert convert(chats, *options) == 2
    assert what in capsys.readouterr().err
    assert [path.name for path in chats.parent.iterdir()] == ["chats.jsonl"]


def test_conditions_compare_and_do_nothing_else():
    row = {"text": "Hallo", "n": 3, "tags": ["a", "b"], "meta": {"lang": "de"}}
    for text in ("len(text) == 5", "1 < n <= 3", "'a' in tags and not n == 4", "meta['lang'] == 'de' or n / 0 > 1"):
        assert Condition(text).holds(row, "row")
    assert not Condition("lower(text) != 'hallo'").holds(row, "row")
    for text in ("text.upper()", "[x for x in tags]", "lambda: 1", "n ** 99", "'a' * n", "(lambda: 1)()", "n :="):
        with pytest.raises(ConfigError, match="--where"):
            Condition(text)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_columns_that_late_rows_widen_hold_all_of_them(suffix: str, tmp_path: Path):
    rows: list[dict[str, Any]] = [{"a": index, "b": None} for index in range(2500)]
    rows += [{"a": 0.5, "b": "text", "c": [1]}]
    source, table, back = write(tmp_path / "rows.jsonl", rows), tmp_path / f"rows{suffix}", tmp_path / "back.jsonl"
    assert cli.run(["convert", "dataset", str(source), "--output", str(table)]) == 0
    assert cli.run(["convert", "dataset", str(table), "--output", str(back)]) == 0
    read = [json.loads(line) for line in back.read_text().splitlines()]
    assert len(read) == 2501
    assert read[-1] == {"a": 0.5, "b": "text", "c": [1]}
    assert (read[7]["a"], read[7]["b"], read[7].get("c")) == (7.0, None, None)


def test_objects_without_keys_go_where_they_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows: list[dict[str, Any]] = [{"a": index, "meta": {}} for index in range(2)]
    path = write(tmp_path / "rows.jsonl", rows)
    assert convert(path, "--output", tmp_path / "rows.parquet") == 2
    assert "column 'meta': no object in it has a key, which Parquet cannot hold" in capsys.readouterr().err
    assert convert(path, "--output", tmp_path / "rows.arrow") == 0
    write(path, [*rows, {"a": 2, "meta": {"late": True}}])
    assert convert(path, "--output", tmp_path / "rows.parquet") == 0
    assert convert(tmp_path / "rows.parquet", "--output", tmp_path / "back.jsonl") == 0
    assert [row["meta"] for row in read(tmp_path / "back.jsonl")] == [{"late": None}] * 2 + [{"late": True}]
