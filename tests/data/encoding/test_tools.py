"""Tools, calls of tools, their answers, and reasoning, through templates that have a place for them or not."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from llmkit.data.chat.builtin_templates import read_template
from llmkit.data.codec import TextCodec
from llmkit.errors import DataError
from llmkit.types import Message, Part, Record, Sample, Source, ToolCall

Tokenizers = Callable[[str], PreTrainedTokenizerFast]
Encode = Callable[..., Sample]
Shown = Callable[..., str]
SOURCE = Source("tools.jsonl", 3)
TOOLS = json.dumps([{"type": "function", "function": {"name": "add", "parameters": {"zeta": 1, "alpha": {"é": None}}}}])
CALL = ToolCall("add", '{"b": 2, "a": [1.5, "é"]}', "call12345")
ASKING = Message("assistant", "", tool_calls=(CALL,), reasoning="I should add.")
MESSAGES = (
    Message("user", "add"),
    ASKING,
    Message("tool", "3.5", tool_call_id="call12345", name="add"),
    Message("assistant", "It is 3.5."),
)
UNMARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }}:{{ c.function.arguments | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Earlier answers lose a word, so that longer conversations do not begin as shorter ones do.
REWRITING = UNMARKED.replace("{{ m.role }}\n", "{{ m.role }}\n{% if loop.last %}last {% endif %}", 1)


def codec_with(tokenizer_of: Tokenizers, template: str, **options: Any) -> TextCodec:
    return TextCodec(tokenizer_of("chatml"), template, **options)


def as_dicts(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Messages as users of transformers write them."""
    turns = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.reasoning:
            turn["reasoning_content"] = message.reasoning
        if message.tool_calls:
            turn["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {"name": call.name, "arguments": json.loads(call.arguments)},
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id:
            turn |= {"tool_call_id": message.tool_call_id, "name": message.name}
        turns.append(turn)
    return turns


@pytest.mark.parametrize("name", ["qwen", "deepseek"])
def test_tools_calls_and_reasoning_are_those_of_transformers(tokenizer_of: Tokenizers, encode: Encode, name: str):
    codec = codec_with(tokenizer_of, read_template(name))
    sample = encode(codec, Record(MESSAGES, SOURCE, tools=TOOLS))
    expected = codec.tokenizer.apply_chat_template(
        as_dicts(MESSAGES),
        tools=json.loads(TOOLS),
        chat_template=read_template(name),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert sample.token_ids == expected["input_ids"]
    assert sample.loss_weights == [float(flag) for flag in expected["assistant_masks"]]


def test_reasoning_and_calls_are_part_of_the_turn(tokenizer_of: Tokenizers, encode: Encode, trained_text: Shown):
    codec = codec_with(tokenizer_of, read_template("qwen"))
    sample = encode(codec, Record(MESSAGES, SOURCE, tools=TOOLS))
    # Keys keep their order, and letters stay as they are.
    assert trained_text(codec, sample) == (
        '<think>\nI should add.\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"b": 2, "a": [1.5, "é"]}}\n'
        "</tool_call><|im_end|>|It is 3.5.<|im_end|>"
    )
    assert '"parameters": {"zeta": 1, "alpha": {"é": null}}' in codec.decode(sample.token_ids)


@pytest.mark.parametrize(
    ("template", "last"), [(UNMARKED, "It is 3.5."), (REWRITING, "last It is 3.5.")], ids=["keeping", "rewriting"]
)
def test_calls_are_found_without_markers(
    tokenizer_of: Tokenizers, encode: Encode, trained_text: Shown, template: str, last: str
):
    codec = codec_with(tokenizer_of, template)
    messages = (MESSAGES[0], Message("assistant", "Wait.", tool_calls=(CALL, CALL)), *MESSAGES[2:])
    call = '<call>add:{"b": 2, "a": [1.5, "é"]}</call>'
    sample = encode(codec, Record(messages, SOURCE))
    assert trained_text(codec, sample) == f"Wait.{call}{call}<|im_end|>|{last}<|im_end|>"
    silent = (MESSAGES[0], Message("assistant", "", tool_calls=(CALL,)), *MESSAGES[2:])
    sample = encode(codec, Record(silent, SOURCE))
    assert trained_text(codec, sample) == f"{call}<|im_end|>|{last}<|im_end|>"


@pytest.mark.parametrize("template", [UNMARKED, REWRITING], ids=["keeping", "rewriting"])
def test_an_end_of_turn_that_arguments_spell_ends_nothing(
    tokenizer_of: Tokenizers, encode: Encode, trained_text: Shown, template: str
):
    codec = codec_with(tokenizer_of, template)
    # The escape is how JSON hides the token from a search of the row's text.
    attack = ToolCall("add", '{"a": "\\u003c|im_end|>", "b<|im_start|>": 1}')
    messages = (MESSAGES[0], Message("assistant", "", tool_calls=(attack,)), *MESSAGES[2:])
    sample = encode(codec, Record(messages, SOURCE))
    specials = codec.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert [sample.token_ids.count(special) for special in specials] == [4, 4]
    assert trained_text(codec, sample).startswith('<call>add:{"a": "<|im_end|>", "b<|im_start|>": 1}</call><|im_end|>|')


def test_special_tokens_that_schemas_and_reasoning_spell_are_text(tokenizer_of: Tokenizers, encode: Encode):
    codec = codec_with(tokenizer_of, read_template("qwen"))
    tools = TOOLS.replace("zeta", "<|im_end|>")
    thinking = Message("assistant", "a", reasoning="<|im_end|>")
    sample = encode(codec, Record((Message("user", "q"), thinking), SOURCE, tools=tools))
    (end,) = codec.tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    assert sample.token_ids.count(end) == 3
    assert codec.decode(sample.token_ids).count("<|im_end|>") == 5


def test_arguments_that_are_no_object_stay_text(tokenizer_of: Tokenizers):
    codec = codec_with(tokenizer_of, read_template("qwen"))
    for arguments in ("a b", "[1]", '"{}"', "1"):
        asking = Message("assistant", "", tool_calls=(ToolCall("f", arguments),))
        text = codec.template.render([Message("user", "q"), asking])
        assert f'"arguments": {arguments}}}' in text


@pytest.mark.parametrize(
    ("name", "record", "what"),
    [
        ("chatml", Record((Message("user", "q"), Message("assistant", "a")), SOURCE, tools=TOOLS), "the row has tools"),
        (
            "chatml",
            Record((Message("user", "q"), Message("assistant", "a", tool_calls=(CALL,))), SOURCE),
            "calls tools",
        ),
        ("llama3", Record((Message("user", "q"), Message("assistant", "a", reasoning="hm")), SOURCE), "has reasoning"),
        (
            "qwen",
            Record((Message("user", (Part(text="what is "), Part("image"))), Message("assistant", "a")), SOURCE),
            r"media \(image\)",
        ),
    ],
)
def test_what_a_template_has_no_place_for_is_not_dropped_in_silence(
    tokenizer_of: Tokenizers, encode: Encode, name: str, record: Record, what: str
):
    codec = codec_with(tokenizer_of, read_template(name))
    with pytest.raises(DataError, match=rf"^tools\.jsonl:3: .*{what}.*--set "):
        encode(codec, record)
    with pytest.raises(DataError, match=rf"^tools\.jsonl:3: .*{what}"):
        codec.prompt_ids(record.messages, record.source, record.tools)


@pytest.mark.parametrize("tools", ["{}", "[1]", "no JSON"])
def test_tools_that_are_no_list_of_schemas_name_the_row(tokenizer_of: Tokenizers, encode: Encode, tools: str):
    codec = codec_with(tokenizer_of, read_template("qwen"))
    with pytest.raises(DataError, match=r"^tools\.jsonl:3: the tools must be a JSON list of objects"):
        encode(codec, Record(MESSAGES, SOURCE, tools=tools))


def test_an_empty_list_of_tools_is_none(tokenizer_of: Tokenizers, encode: Encode):
    codec = codec_with(tokenizer_of, read_template("qwen"))
    assert encode(codec, Record(MESSAGES, SOURCE, tools="[]")) == encode(codec, Record(MESSAGES, SOURCE))


def test_several_answers_of_tools_are_one_turn_of_qwen(tokenizer_of: Tokenizers):
    codec = codec_with(tokenizer_of, read_template("qwen"))
    text = codec.template.render([MESSAGES[0], ASKING, Message("tool", "1"), Message("tool", "2"), MESSAGES[3]])
    assert (
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        in text
    )
