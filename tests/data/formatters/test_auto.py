"""Which formatter is found for rows, and what is said when there is none or more than one."""

import json
from typing import Any

import pytest

from llmkit.data.formatters import (
    alpaca,
    auto,
    kto,
    messages,
    openai_preference,
    preference,
    prompt_completion,
    question_answer,
    sharegpt,
    text,
    tokens,
)
from llmkit.errors import DataError
from llmkit.testing.samples import row
from llmkit.types import Message, Record

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
GPT = {"from": "gpt", "value": "a"}


def choose(values: dict[str, Any], path: str = "train.jsonl") -> Any:
    return auto.build(auto.Config()).choose([row(values, 17, path)] * 3)


@pytest.mark.parametrize(
    ("values", "formatter"),
    [
        ({"messages": CHAT}, messages.Messages),
        ({"messages": json.dumps(CHAT)}, messages.Messages),
        ({"messages": str(CHAT)}, messages.Messages),
        ({"messages": CHAT, "label": True}, messages.Messages),
        ({"messages": CHAT, "tools": [], "prompt": "q", "prompt_id": "x"}, messages.Messages),
        ({"conversations": CHAT}, messages.Messages),
        ({"conversations": TURNS}, sharegpt.ShareGPT),
        ({"conversations": json.dumps(TURNS), "system": "s"}, sharegpt.ShareGPT),
        ({"messages": TURNS}, sharegpt.ShareGPT),
        ({"conversation": [{"human": "q", "assistant": "a"}]}, sharegpt.ShareGPT),
        ({"conversations": TURNS[:1], "chosen": GPT, "rejected": GPT}, sharegpt.ShareGPT),
        ({"instruction": "q", "input": "", "output": "a"}, alpaca.Alpaca),
        ({"instruction": "q", "output": "a", "text": "Below is ..."}, alpaca.Alpaca),
        ({"instruction": "q", "output": "a", "history": "[]", "system": ""}, alpaca.Alpaca),
        ({"instruction": "q", "input": "", "chosen": "a", "rejected": "b"}, alpaca.Alpaca),
        ({"instruction": "q", "answer": "4"}, alpaca.Alpaca),
        ({"question": "q", "answer": "a"}, question_answer.QuestionAnswer),
        ({"question": "q", "answer": 4, "text": "t"}, question_answer.QuestionAnswer),
        ({"prompt": "q", "completion": "a"}, prompt_completion.PromptCompletion),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, prompt_completion.PromptCompletion),
        ({"prompt": "q", "answer": "a"}, prompt_completion.PromptCompletion),
        ({"prompt": CHAT[:1], "reward_model": {"ground_truth": "4"}}, prompt_completion.PromptCompletion),
        ({"prompt": "q", "completion": "a", "label": True}, kto.KTO),
        ({"prompt": "q", "completion": "a", "label": "0"}, kto.KTO),
        ({"prompt": "q", "completion": "a", "label": "sports"}, prompt_completion.PromptCompletion),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, preference.Preference),
        ({"question": "q", "answer": "4", "chosen": "a", "rejected": "b"}, preference.Preference),
        ({"chosen": CHAT, "rejected": CHAT}, preference.Preference),
        ({"messages": CHAT[:1], "chosen": "a", "rejected": "b"}, preference.Preference),
        (
            {"input": {"messages": CHAT[:1]}, "preferred_output": CHAT[1:], "non_preferred_output": CHAT[1:]},
            openai_preference.OpenAIPreference,
        ),
        ({"text": "t"}, text.Text),
        ({"text": "t", "url": "u", "timestamp": "2020"}, text.Text),
        ({"input_ids": [1, 2]}, tokens.Tokens),
        ({"input_ids": [1, 2], "attention_mask": [1, 1], "labels": [1, 2]}, tokens.Tokens),
        ({"input_ids": "[1, 2]"}, tokens.Tokens),
    ],
)
def test_the_formatter_is_found(values: dict, formatter: type):
    assert type(choose(values)) is formatter


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"messages": CHAT, "text": "t"}, ["messages", "text"]),
        ({"messages": CHAT, "question": "q", "answer": "a"}, ["messages", "question_answer"]),
        ({"messages": CHAT, "conversations": TURNS}, ["messages", "sharegpt"]),
        ({"prompt": "q", "completion": "a", "instruction": "i", "output": "o"}, ["alpaca", "prompt_completion"]),
        ({"text": "t", "input_ids": [1]}, ["text", "tokens"]),
    ],
)
def test_rows_that_fit_several_formats_are_asked_about(values: dict, names: list[str]):
    with pytest.raises(DataError) as caught:
        choose(values)
    assert str(caught.value) == (
        f"train.jsonl:17: the rows could be '{names[0]}' or '{names[1]}'; found {', '.join(values)}. Choose with "
        f"--set formatter.name={names[0]}"
    )


@pytest.mark.parametrize(
    ("columns", "prompt", "completion"),
    [
        (("query", "response"), "query", "response"),
        (("prompt", "response"), "prompt", "response"),
        (("problem", "solution", "level"), "problem", "solution"),
        (("instruction", "response", "context"), "instruction", "response"),
        (("input", "target"), "input", "target"),
        (("question", "output"), "question", "output"),
    ],
)
def test_columns_of_other_names_are_proposed(columns: tuple[str, ...], prompt: str, completion: str):
    with pytest.raises(DataError) as caught:
        choose(dict.fromkeys(columns, "words"))
    options = f"formatter.prompt_column={prompt} --set formatter.completion_column={completion}"
    assert f"--set formatter.name=prompt_completion --set {options}" in str(caught.value)
    # What is proposed works.
    config = prompt_completion.Config(prompt_column=prompt, completion_column=completion)
    record = prompt_completion.build(config).to_record(row(dict.fromkeys(columns, "words")))
    assert record.messages == (Message("user", "words"), Message("assistant", "words"))


def test_of_several_columns_the_others_are_named():
    with pytest.raises(DataError, match=r"prompt_column=query .*\(or another of query, problem; response, target\)"):
        choose(dict.fromkeys(("problem", "query", "response", "target"), "words"))


def test_rows_that_fit_nothing():
    with pytest.raises(
        DataError, match=r"^train\.jsonl:17: no formatter fits these rows; found colour\. Installed: alp"
    ):
        choose({"colour": "red"})
    with pytest.raises(DataError, match="No rows to find the format from"):
        auto.build(auto.Config()).choose([])


def test_it_reads_and_writes_with_what_it_chose():
    formatter = auto.build(auto.Config())
    with pytest.raises(DataError, match=r"no format was chosen to write in"):
        formatter.from_record(Record((), row({}).source))
    record = formatter.to_record(row({"question": "q", "answer": "a"}))
    assert record.messages == (Message("user", "q"), Message("assistant", "a"))
    assert formatter.from_record(record) == {"question": "q", "answer": "a"}
    assert formatter.score([row({"question": "q", "answer": "a"})]) == 1.0
    assert formatter.score([row({"colour": "red"})]) == 0.0


def test_it_stays_with_the_majority_when_a_row_is_bad():
    good, bad = row({"question": "q", "answer": "a"}), row({"question": "q"})
    chosen = auto.build(auto.Config()).choose([good, good, bad, good])
    assert isinstance(chosen, question_answer.QuestionAnswer)


def test_a_row_of_another_format_says_what_it_looks_like():
    formatter = auto.build(auto.Config())
    formatter.choose([row({"messages": CHAT})])
    with pytest.raises(DataError) as caught:
        formatter.to_record(row({"instruction": "q", "output": "a"}, 17, "train.jsonl"))
    assert str(caught.value).startswith(
        "train.jsonl:17: no 'messages'; found instruction, output. The row looks like the format 'alpaca': "
        "--set formatter.name=alpaca, if all rows are like it."
    )
