"""The example files that come with LLaMA-Factory load in full."""

import json
from pathlib import Path

import pytest

from llmkit.data.datasets import llamafactory
from llmkit.data.datasets.dataset_info import read_entry
from llmkit.data.datasets.llamafactory_rows import formatter_of
from llmkit.data.files.reading import open_path
from llmkit.types import Record

FORMATS = Path(__file__).parents[4] / "shared" / "data" / "formats"
needs_formats = pytest.mark.skipif(not FORMATS.is_dir(), reason="the example files are not here")
COUNTS = {
    "identity": 91,
    "alpaca_en_demo": 999,
    "glaive_toolcall_en_demo": 300,
    "mllm_demo": 6,
    "dpo_en_demo": 300,
    "kto_en_demo": 300,
    "wiki_demo": 30,
    "c4_demo": 300,
}


@needs_formats
@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_row_of_the_real_files_loads(name: str, count: int):
    dataset = llamafactory.build(llamafactory.Config(path=str(FORMATS), dataset=name))
    records = [dataset[index] for index in range(len(dataset))]
    assert len(records) == count
    assert len({record.source for record in records}) == count
    assert all(record.extra == {} for record in records), "every column has a meaning"


@needs_formats
def test_every_entry_of_the_real_file_is_understood():
    entries = json.loads((FORMATS / "dataset_info.json").read_text())
    assert len(entries) > 100
    for name in entries:
        formatter_of(read_entry(str(FORMATS), name))


@needs_formats
def test_nothing_is_lost_of_the_real_files():
    def load(name: str) -> list[Record]:
        dataset = llamafactory.build(llamafactory.Config(path=str(FORMATS), dataset=name))
        return [record for index in range(len(dataset)) if isinstance(record := dataset[index], Record)]

    calls = [
        call for record in load("glaive_toolcall_en_demo") for message in record.messages for call in message.tool_calls
    ]
    assert len(calls) == 211
    images = [part.url for record in load("mllm_demo") for message in record.messages for part in message.media]
    assert len(images) == 8
    assert all(url and Path(url).is_file() for url in images)
    assert {record.label for record in load("kto_en_demo")} == {True, False}
    assert all(record.chosen and record.rejected for record in load("dpo_en_demo"))
    raw = open_path(str(FORMATS / "alpaca_en_demo.json"))
    said = sum(len(message.text) for record in load("alpaca_en_demo") for message in record.messages)
    rows = [raw[index].values for index in range(len(raw))]  # type: ignore[union-attr]
    # An input is joined to its instruction with one line break.
    assert said == sum(len(row[key]) for row in rows for key in ("instruction", "input", "output")) + sum(
        bool(row["input"]) for row in rows
    )
    text = (FORMATS / "wiki_demo.txt").read_text(encoding="utf-8")
    assert "\n".join(record.text or "" for record in load("wiki_demo")).rstrip("\n") == text.rstrip("\n")
