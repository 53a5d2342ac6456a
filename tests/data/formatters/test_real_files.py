"""The formats of real files are found, and every row of them loads and can be written again."""

from pathlib import Path

import pytest

from llmkit.data.contract import choose_formatter
from llmkit.data.files.reading import open_path
from llmkit.data.formatters import alpaca, auto, messages, question_answer, sharegpt, text
from llmkit.types import Row

DATA = Path(__file__).parents[4] / "shared" / "data"
FILES = {
    "formats/alpaca_en_demo.json": (alpaca.Alpaca, 999),
    "formats/identity.json": (alpaca.Alpaca, 91),
    "formats/dpo_en_demo.json": (sharegpt.ShareGPT, 300),
    "formats/glaive_toolcall_en_demo.json": (sharegpt.ShareGPT, 300),
    "formats/kto_en_demo.json": (messages.Messages, 300),
    "formats/mllm_demo.json": (messages.Messages, 6),
    "formats/c4_demo.jsonl": (text.Text, 300),
    "formats/wiki_demo.txt": (text.Text, 30),
    "gsm8k/train.jsonl": (question_answer.QuestionAnswer, 7473),
    "gsm8k/test.jsonl": (question_answer.QuestionAnswer, 1319),
}


@pytest.mark.skipif(not DATA.is_dir(), reason="the example files are not here")
@pytest.mark.parametrize("name", FILES)
def test_every_row_is_read_and_written_again(name: str):
    kind, count = FILES[name]
    dataset = open_path(str(DATA / name))
    formatter = choose_formatter(auto.build(auto.Config()), dataset)
    assert type(formatter) is kind
    assert len(dataset) == count
    for index in range(count):
        row = dataset[index]
        assert isinstance(row, Row)
        record = formatter.to_record(row)
        assert formatter.to_record(Row(formatter.from_record(record), row.source)) == record
