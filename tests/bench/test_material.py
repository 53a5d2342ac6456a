import json

import pytest
from transformers import AutoTokenizer

from llmkit.bench.material import CHATML, make_material, repeat_rows
from llmkit.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_made_up_chats_and_a_tokenizer_of_their_own(tmp_path):
    material = make_material(None, None, 20, tmp_path)
    lines = material.rows.read_text(encoding="utf-8").splitlines()
    assert material.num_rows == len(lines) == 20
    tokenizer = AutoTokenizer.from_pretrained(material.tokenizer)
    messages = json.loads(lines[0])["messages"]
    encoded = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    trained = [one for one, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    answers = [message["content"] + "<|im_end|>" for message in messages if message["role"] == "assistant"]
    assert tokenizer.decode(trained) == "".join(answers)


def test_the_tokenizer_is_trained_once_for_the_same_rows(tmp_path):
    for directory in ("one", "two"):
        (tmp_path / directory).mkdir()
        make_material(None, None, 20, tmp_path / directory)
    trained = list((tmp_path / "cache").rglob("tokenizer.json"))
    assert len(trained) == 1


def test_the_users_rows_in_any_format_become_messages(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"question": f"{n}+1?", "answer": f"#### {n + 1}"} for n in range(5)])
    material = make_material(path, None, 3, tmp_path)
    rows = [json.loads(line)["messages"] for line in material.rows.read_text(encoding="utf-8").splitlines()]
    assert [[message["role"] for message in row] for row in rows] == [["user", "assistant"]] * 3
    assert rows[2][0]["content"] == "2+1?"


def test_a_template_without_markers_gives_way_to_one_that_has_them(tmp_path):
    from llmkit.testing.tiny import tiny_model

    material = make_material(None, tiny_model(), 5, tmp_path)
    assert AutoTokenizer.from_pretrained(material.tokenizer).chat_template == CHATML
    assert material.about["template"] == "ChatML with generation markers"


def test_a_template_that_marks_answers_is_kept(tmp_path):
    material = make_material(None, "builtin:tiny-untrained", 5, tmp_path)
    assert material.about["template"] == "the tokenizer's own"


def test_rows_that_contenders_read_differently_are_refused(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "weight": 0.5}]
    path = write(tmp_path / "rows.jsonl", [{"messages": turns}])
    with pytest.raises(DataError, match=r"rows\.jsonl:1: a message with more than a role and text"):
        make_material(path, None, 1, tmp_path)


def test_rows_repeat_up_to_a_number_or_a_size(tmp_path):
    material = make_material(None, None, 3, tmp_path)
    lines = material.rows.read_bytes().splitlines(keepends=True)
    assert repeat_rows(material, tmp_path / "five", num_rows=5) == 5
    assert (tmp_path / "five").read_bytes() == b"".join([*lines, *lines[:2]])
    size = len(b"".join(lines))
    assert repeat_rows(material, tmp_path / "sized", num_bytes=size + 1) == 4
