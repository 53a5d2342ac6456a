"""The data set `huggingface`: directories of `save_to_disk`, copies of hub repositories, and data files."""

import json
from pathlib import Path

import datasets
import pytest

from llmkit.data.datasets import huggingface
from llmkit.errors import DataError, SourceError


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def build(path: Path | str, **options):
    return huggingface.build(huggingface.Config(path=str(path), **options))


def values(dataset) -> list[dict]:
    return [dict(dataset[index].values) for index in range(len(dataset))]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory of `save_to_disk` with the splits `train` (10 rows) and `test` (4)."""
    table = datasets.Dataset.from_list([{"n": n} for n in range(10)])
    datasets.DatasetDict({"train": table, "test": table.select(range(4))}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of a hub repository whose README names two subsets."""
    directory = tmp_path / "repository"
    directory.mkdir()
    (directory / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files: main-*.jsonl\n"
        "- config_name: other\n  data_files:\n"
        "  - {split: train, path: other.jsonl}\n  - {split: test, path: test.jsonl}\n"
        "---\nAbout.\n"
    )
    for name, numbers in (("main-0", range(3)), ("main-1", range(3, 5)), ("other", (7,)), ("test", (8, 9))):
        (directory / f"{name}.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in numbers))
    return directory


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("train[:20%]", [0, 1]),
        ("train[7:]", [7, 8, 9]),
        ("train[-1:]+test[1:3]", [9, 1, 2]),
        ("test", [0, 1, 2, 3]),
    ],
)
def test_parts_of_splits(saved: Path, split: str, numbers: list[int]):
    dataset = build(saved, split=split)
    assert values(dataset) == [{"n": n} for n in numbers]
    assert str(dataset[0].source) == f"{saved}[{split}]:1"
    assert [row.values["n"] for row in build(saved, split=split, streaming=True).open()] == numbers


@pytest.mark.parametrize("split", ["train[:x]", "train[1:2:3]", "train[:200%]"])
def test_a_part_that_is_not_written_right(saved: Path, split: str):
    with pytest.raises(DataError, match=r"saved: dataset\.split="):
        build(saved, split=split)


def test_a_table_that_was_saved_alone_has_one_split(tmp_path: Path):
    datasets.Dataset.from_list([{"n": 1}]).save_to_disk(tmp_path / "one")
    assert values(build(tmp_path / "one")) == [{"n": 1}]
    with pytest.raises(DataError, match="no split 'test'; here is one table, of split 'train'"):
        build(tmp_path / "one", split="test")


def test_options_without_effect_are_warned_about(saved: Path, caplog: pytest.LogCaptureFixture):
    build(saved, subset="main", revision="v1")
    assert "dataset.subset has no effect" in caplog.text
    assert "dataset.revision has no effect" in caplog.text


def test_a_copy_of_a_repository_has_its_subsets_and_splits(repository: Path):
    assert [row["n"] for row in values(build(repository, subset="main"))] == [0, 1, 2, 3, 4]
    assert [row["n"] for row in values(build(repository, subset="other", split="test"))] == [8, 9]
    assert [row["n"] for row in values(build(repository, subset="main", split="train[1:3]", limit=1))] == [1]
    with pytest.raises(
        DataError, match=r"cannot be loaded: name a subset: --set dataset\.subset=NAME, one of .*main.*other"
    ):
        build(repository)
    with pytest.raises(DataError, match="subset other, split 'dev' cannot be loaded: "):
        build(repository, subset="other", split="dev")


def test_data_files_are_chosen_by_name_or_pattern(repository: Path):
    (repository / "README.md").unlink()
    assert [row["n"] for row in values(build(repository, data_files="main-*.jsonl"))] == [0, 1, 2, 3, 4]
    assert [row["n"] for row in values(build(repository, data_files=["test.jsonl", "other.jsonl"]))] == [8, 9, 7]
    by_type = build("json", data_files=str(repository / "main-1.jsonl"))
    assert [row["n"] for row in values(by_type)] == [3, 4]
    with pytest.raises(DataError, match="cannot be loaded: "):
        build(repository, data_files="none-*.jsonl")


def test_streaming_reads_a_repository_without_loading_it(repository: Path, tmp_path: Path):
    stream = build(repository, subset="main", streaming=True)
    reader = stream.open()
    assert [next(reader).values["n"] for _ in range(4)] == [0, 1, 2, 3]
    position = json.loads(json.dumps(reader.position))
    again = build(repository, subset="main", streaming=True)
    assert [row.values["n"] for row in again.open(position)] == [4]
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_stream_is_one_whole_split(repository: Path):
    with pytest.raises(DataError, match=r"a stream is one whole split; use dataset\.limit"):
        build(repository, subset="main", split="train[:1]", streaming=True)


def test_a_repository_that_changed_refuses_a_position(repository: Path):
    reader = build(repository, subset="main", streaming=True).open()
    next(reader)
    (repository / "main-1.jsonl").write_text('{"n": 3}\n')
    with pytest.raises(DataError, match="the data set changed since the position to go on from was saved"):
        build(repository, subset="main", streaming=True).open(reader.position)


def test_a_stream_that_breaks_off_says_where(repository: Path):
    (repository / "main-1.jsonl").write_text('{"n": 3}\n{"n"')
    reader = build(repository, subset="main", streaming=True).open()
    assert [next(reader).values["n"] for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(SourceError, match=r"repository\[train\]:4: cannot be read: "):
            next(reader)


def test_a_faulty_file_says_what_is_wrong(repository: Path):
    (repository / "main-1.jsonl").write_text('{"n": 3}\n{"n"')
    with pytest.raises(
        DataError, match=r"cannot be loaded: .*JSON.*To read single files use --set dataset\.name=files"
    ):
        build(repository, subset="main")


def test_fingerprints_tell_contents_and_options_apart(repository: Path, saved: Path):
    def streamed(**options) -> str:
        return build(repository, subset="main", streaming=True, **options).fingerprint()

    first = streamed()
    assert first == streamed() != streamed(limit=2)
    (repository / "main-1.jsonl").write_text('{"n": 9}\n{"n": 4}\n')
    assert streamed() != first
    whole = build(saved).fingerprint()
    assert whole == build(saved).fingerprint()
    assert len({whole, build(saved, limit=2).fingerprint(), build(saved, split="train[:5]").fingerprint()}) == 3


def test_structs_have_the_keys_of_all_rows_and_text_stays_as_it_is(tmp_path: Path):
    # Arrow keeps one set of keys for a column of structs: what a row lacked comes back as null. JSON text does not.
    rows = [
        {"tools": [{"name": "a", "properties": {"city": {"type": "string"}}}], "text": '[{"name": "a"}]'},
        {"tools": [{"name": "b", "properties": {"date": {"type": "string"}}}], "text": '[{"name": "b"}]'},
    ]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "tools")
    first, second = values(build(tmp_path / "tools"))
    assert first["tools"][0]["properties"] == {"city": {"type": "string"}, "date": None}
    assert second["tools"][0]["properties"] == {"city": None, "date": {"type": "string"}}
    assert [first["text"], second["text"]] == ['[{"name": "a"}]', '[{"name": "b"}]']


def test_a_column_of_json_keeps_its_keys(tmp_path: Path):
    features = datasets.Features({"tool": datasets.Json()})
    rows = [{"tool": {"city": "x"}}, {"tool": {"date": [1]}}]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "json")
    assert values(build(tmp_path / "json")) == rows
    assert [dict(row.values) for row in build(tmp_path / "json", streaming=True).open()] == rows


def test_media_stay_as_they_are_stored(tmp_path: Path):
    feature = {"image": datasets.Image(), "images": datasets.List(datasets.Image())}
    row = {"image": {"bytes": b"png", "path": None}, "images": [{"bytes": b"gif", "path": None}]}
    datasets.Dataset.from_list([row], features=datasets.Features(feature)).save_to_disk(tmp_path / "media")
    assert values(build(tmp_path / "media")) == [row]
    assert [dict(found.values) for found in build(tmp_path / "media", streaming=True).open()] == [row]
