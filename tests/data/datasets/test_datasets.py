"""The data sets `files`, `gsm8k` and `huggingface`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmkit.data.datasets import files, gsm8k, huggingface
from llmkit.data.formatters import question_answer
from llmkit.errors import DataError

GSM8K = Path(__file__).parents[4] / "shared" / "data" / "gsm8k"
needs_gsm8k = pytest.mark.skipif(not GSM8K.is_dir(), reason="the GSM8K files are not here")


def test_files(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    dataset = files.build(files.Config(path=str(tmp_path), limit=1))
    assert len(dataset) == 1
    assert dataset[0].values == {"n": 1}
    assert str(dataset[0].source) == f"{tmp_path}/train.jsonl:1"


@needs_gsm8k
@pytest.mark.parametrize(("split", "rows"), [("train", 7473), ("test", 1319)])
def test_gsm8k_is_whole(split: str, rows: int):
    dataset = gsm8k.build(gsm8k.Config(path=str(GSM8K), split=split))
    formatter = question_answer.build(question_answer.Config())
    records = [formatter.to_record(dataset[index]) for index in range(len(dataset))]
    assert len(records) == rows
    assert all(record.answer and record.answer.lstrip("-").replace(",", "").isdigit() for record in records)
    assert records[-1].source.line == rows


def test_gsm8k_reads_a_copy_of_the_hubs_repository(tmp_path: Path):
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "test.jsonl").write_text('{"question": "q", "answer": "#### 1"}\n')
    dataset = gsm8k.build(gsm8k.Config(path=str(tmp_path), split="test"))
    assert dataset[0].values["question"] == "q"


def test_gsm8k_knows_its_contents(tmp_path: Path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(f'{{"question": "{split}", "answer": "#### 1"}}\n')
    train, test = (gsm8k.build(gsm8k.Config(path=str(tmp_path), split=split)) for split in ("train", "test"))
    assert train.fingerprint() != test.fingerprint()


def test_files_as_a_stream(tmp_path: Path):
    (tmp_path / "train.csv").write_text("n\n1\n2\n")
    stream = files.build(files.Config(path=str(tmp_path), streaming=True, limit=1, columns={"number": "n"}))
    assert [row.values for row in stream.open()] == [{"number": "1"}]


def test_gsm8k_in_a_missing_directory():
    with pytest.raises(DataError, match=r"^dataset\.path=\./nowhere: no such file or directory"):
        gsm8k.build(gsm8k.Config(path="./nowhere"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory of `save_to_disk` with two splits, and one with a single table."""
    import datasets

    datasets.disable_progress_bars()
    table = datasets.Dataset.from_list([{"n": 1, "tags": ["a", "b"]}, {"n": 2, "tags": []}])
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "both")
    table.save_to_disk(tmp_path / "one")
    return tmp_path


def test_huggingface_reads_save_to_disk(saved: Path):
    both = str(saved / "both")
    dataset = huggingface.build(huggingface.Config(path=both))
    assert [dataset[index].values for index in range(len(dataset))] == [
        {"n": 1, "tags": ["a", "b"]},
        {"n": 2, "tags": []},
    ]
    assert str(dataset[1].source) == f"{both}[train]:2"
    assert len(huggingface.build(huggingface.Config(path=both, split="test"))) == 1
    one = huggingface.build(huggingface.Config(path=str(saved / "one"), limit=1))
    assert len(one) == 1
    with pytest.raises(IndexError):
        one[1]


def test_huggingface_names_the_splits_that_there_are(saved: Path):
    with pytest.raises(DataError, match="no split 'dev'; splits here: train, test"):
        huggingface.build(huggingface.Config(path=str(saved / "both"), split="dev"))


def test_huggingface_on_a_directory_of_files_names_their_plugin(tmp_path: Path):
    with pytest.raises(DataError, match=r"--set dataset\.name=files"):
        huggingface.build(huggingface.Config(path=str(tmp_path)))


def test_huggingface_on_a_damaged_directory(saved: Path):
    (table,) = (saved / "one").glob("*.arrow")
    os.truncate(table, 100)
    with pytest.raises(DataError, match="the data set cannot be read"):
        huggingface.build(huggingface.Config(path=str(saved / "one")))


PROGRAM = """
import json, sys
from llmkit.data.datasets import gsm8k, huggingface
from llmkit.errors import DataError
messages = []
for build in (
    lambda: gsm8k.build(gsm8k.Config()),
    lambda: huggingface.build(huggingface.Config(path="no-such-owner/no-such-set", revision="v1")),
):
    try:
        build()
    except DataError as error:
        messages.append(str(error))
json.dump(messages, sys.stdout)
"""


@pytest.mark.parametrize(
    "environment",
    [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}],
    ids=["offline", "unreachable"],
)
def test_a_hub_that_is_not_reached_gives_one_line(tmp_path: Path, environment: dict[str, str]):
    variables = {**os.environ, "HF_HOME": str(tmp_path), "NO_PROXY": "*", **environment}
    # Six attempts with growing pauses would outlast this limit, which is only there to end the test.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True, check=True, timeout=120
    )
    first, second = json.loads(done.stdout)
    assert first.startswith(
        "dataset.path=openai/gsm8k: no local directory of that name, and the Hugging Face hub cannot"
    )
    assert first.endswith("To use a local copy: --set dataset.path=DIR")
    assert second.startswith("dataset.path=no-such-owner/no-such-set: no local directory")
    assert "Retry" not in done.stderr
