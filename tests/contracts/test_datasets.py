"""Our data sets and streams keep the contracts that third parties test theirs with."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llmkit.data.contract import Dataset, Stream
from llmkit.testing.dataset import DatasetContract, StreamContract

ROWS = [{"text": f"row {n}", "more": 'é, "quoted"\nsecond line' * (n % 3)} for n in range(30)]
FORMATS = (
    "rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.json", "objects.json", "wrapped.json", "rows.csv",
    "rows.csv.gz", "rows.tsv", "rows.parquet", "rows.arrow", "rows.feather", "lines.txt", "paragraphs.txt",
    "rows.txt.gz",
)  # fmt: skip


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """The rows in the form that the file's name says."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    match name.partition(".")[2]:
        case "jsonl":
            content = "".join(json.dumps(row) + "\n" for row in rows)
        case "json":
            content = {
                "rows.json": json.dumps(rows, indent=1),
                "objects.json": "\n".join(json.dumps(row, indent=1) for row in rows),
                "wrapped.json": json.dumps({"version": 1, "data": rows, "end": []}),
            }[name]
        case "txt":
            between = "\n\n \n" if name == "paragraphs.txt" else "\n"
            content = between.join(row["text"] for row in rows)
        case "csv" | "tsv" as kind:
            with path.with_suffix(".plain").open("w", newline="") as file:
                writer = csv.writer(file, delimiter="," if kind == "csv" else "\t")
                writer.writerows([rows[0].keys(), *(row.values() for row in rows)])
            content = path.with_suffix(".plain").read_text()
        case kind:
            write_table(path, kind, rows)
            return
    path.write_bytes(packed(content.encode(), path.suffix))


def write_table(path: Path, kind: str, rows: list[dict[str, str]]) -> None:
    import pyarrow
    from pyarrow import feather, ipc, parquet

    table = pyarrow.Table.from_pylist(rows)
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=7)
    elif kind == "feather":
        feather.write_feather(table, str(path), chunksize=7)
    else:
        with ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=7)


def packed(content: bytes, suffix: str) -> bytes:
    import pyarrow

    if suffix == ".gz":
        return gzip.compress(content)
    return pyarrow.compress(content, codec="zstd", asbytes=True) if suffix == ".zst" else content


class OfFiles:
    """Two files of each format."""

    name = "files"

    @pytest.fixture(autouse=True, params=FORMATS)
    def _files(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
        self.paths = [tmp_path / "a" / request.param, tmp_path / "b" / request.param]
        for path, rows in zip(self.paths, (ROWS[:18], ROWS[18:]), strict=True):
            path.parent.mkdir()
            write_rows(path, rows)

    def build_with(self, **options: Any) -> Any:
        text_rows = "paragraph" if self.paths[0].name == "paragraphs.txt" else "line"
        plugin: Any = self.plugin()  # type: ignore[attr-defined] - of the contract beside this class
        return plugin.build(plugin.Config(path=[str(path) for path in self.paths], text_rows=text_rows, **options))


class TestFiles(OfFiles, DatasetContract):
    def build(self) -> Dataset:
        return self.build_with()

    def test_no_row_is_missing(self) -> None:
        dataset = self.build()
        assert [dataset[index].values["text"] for index in range(len(dataset))] == [row["text"] for row in ROWS]


class TestFilesStreaming(OfFiles, StreamContract):
    def build(self) -> Stream:
        return self.build_with(streaming=True)

    def dataset(self) -> Dataset:
        return self.build_with()

    def faulty(self) -> Stream | None:
        faults = {"rows.jsonl": "{not JSON}\n", "rows.csv": "one cell\n"}
        if self.paths[0].name not in faults:
            return None
        lines = self.paths[0].read_text().splitlines(keepends=True)
        self.paths[0].write_text("".join([*lines[:2], faults[self.paths[0].name], *lines[2:]]))
        return self.build()


class TestFilesStreamingSome(OfFiles, StreamContract):
    """The first rows only, with other names, across the border of two files."""

    def build(self) -> Stream:
        return self.build_with(streaming=True, limit=20, columns={"words": "text"})

    def dataset(self) -> Dataset:
        return self.build_with(limit=20, columns={"words": "text"})


class TestArithmetic(DatasetContract):
    name = "arithmetic"
    options: ClassVar[dict[str, Any]] = {"size": 30}
    bad_options = ({"min_steps": 3, "max_steps": 2}, {"size": 0})


class TestGSM8K(DatasetContract):
    name = "gsm8k"
    bad_options = ({"path": "./nowhere"},)

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        (tmp_path / "train.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n')
        self.directory = tmp_path

    def build(self) -> Dataset:
        plugin = self.plugin()
        return plugin.build(plugin.Config(path=str(self.directory)))


class OfHub:
    """A directory of `save_to_disk`, and a copy of a hub repository."""

    name = "huggingface"

    @pytest.fixture(autouse=True, params=["saved", "repository"])
    def _directory(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        import datasets

        datasets.disable_progress_bars()
        table = datasets.Dataset.from_list(ROWS)
        self.directory = tmp_path / request.param
        if request.param == "saved":
            table.save_to_disk(str(self.directory), num_shards=2)
            return
        for number in range(2):
            name = self.directory / "data" / f"train-0000{number}-of-00002.parquet"
            name.parent.mkdir(parents=True, exist_ok=True)
            table.shard(2, number).to_parquet(str(name))

    def build_with(self, **options: Any) -> Any:
        plugin: Any = self.plugin()  # type: ignore[attr-defined] - of the contract beside this class
        return plugin.build(plugin.Config(path=str(self.directory), **options))


class TestHuggingFace(OfHub, DatasetContract):
    bad_options = ({"path": "./nowhere"},)

    def build(self) -> Dataset:
        return self.build_with()


class TestHuggingFaceStreaming(OfHub, StreamContract):
    def build(self) -> Stream:
        return self.build_with(streaming=True)

    def dataset(self) -> Dataset:
        return self.build_with()


class TestHuggingFaceStreamingSome(OfHub, StreamContract):
    def build(self) -> Stream:
        return self.build_with(streaming=True, limit=11)

    def dataset(self) -> Dataset:
        return self.build_with(limit=11)
