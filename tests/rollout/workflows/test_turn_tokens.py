"""What stands between sampled turns is what the chat template itself would have written there."""

import re

import pytest

from llmkit.data.chat.builtin_templates import read_template
from llmkit.data.codec import TextCodec
from llmkit.errors import ModelError
from llmkit.rollout.workflows.turn_tokens import check_template, stand_in, tokens_between
from llmkit.testing.tiny import tiny_codec, tiny_model
from llmkit.types import Message, ToolCall

QUESTION, ANSWER = Message("user", "What is 3 + 4?"), Message("assistant", "It is 8.")
AGAIN = Message("user", "No. Try again.")
CALL = ToolCall("python", '{"code": "3 + 4"}', "call00000")
CALLS = Message("assistant", "", tool_calls=(CALL,))
RESULT = Message("tool", "7", tool_call_id=CALL.id, name="python")
TOOLS = '[{"type": "function", "function": {"name": "python", "parameters": {"type": "object", "properties": {}}}}]'
ENDS = {
    "chatml": "<|im_end|>",
    "qwen": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "mistral": "</s>",
    "gemma": "<end_of_turn>",
    "phi": "<|end|>",
    "zephyr": "</s>",
    "vicuna": "</s>",
    "deepseek": "<｜end▁of▁sentence｜>",
}
WITH_TOOLS = ("qwen", "llama3", "mistral", "deepseek")


def codec_of(name: str) -> TextCodec:
    """The byte-level tokenizer with a built-in template and its special tokens."""
    template = read_template(name)
    tokenizer = tiny_codec().tokenizer.__class__.from_pretrained(tiny_model())
    special = [token for token in _special_in(template) if token not in tokenizer.get_vocab()]
    tokenizer.add_special_tokens({"additional_special_tokens": special}, replace_extra_special_tokens=False)
    end = ENDS[name]
    tokenizer.eos_token = end
    tokenizer.bos_token = "<s>"
    return TextCodec(tokenizer, template)


def _special_in(template: str) -> list[str]:
    found = re.findall(r"<[|｜][^|｜<>\n]+[|｜]>|<(?:start|end)_of_turn>", template)
    return sorted({*found, *ENDS.values(), "<s>"})


@pytest.mark.parametrize("name", ENDS)
def test_a_second_try_is_what_the_template_writes(name: str):
    codec = codec_of(name)
    answered = codec.conversation_ids((QUESTION, ANSWER))
    stop = max(place for place, token in enumerate(answered) if token in codec.stop_token_ids)
    sampled = answered[: stop + 1]
    given = tokens_between(codec, (QUESTION, stand_in()), (AGAIN,), sampled[-1])
    assert [*sampled, *given] == codec.prompt_ids((QUESTION, ANSWER, AGAIN))


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_a_tools_result_is_what_the_template_writes(name: str):
    codec = codec_of(name)
    called = codec.conversation_ids((QUESTION, CALLS), tools=TOOLS)
    stop = max(place for place, token in enumerate(called) if token in codec.stop_token_ids)
    sampled = called[: stop + 1]
    given = tokens_between(codec, (QUESTION, stand_in((CALL,))), (RESULT,), sampled[-1], tools=TOOLS)
    assert [*sampled, *given] == codec.prompt_ids((QUESTION, CALLS, RESULT), tools=TOOLS)


def test_an_answer_without_its_end_is_given_one():
    codec = codec_of("qwen")
    given = tokens_between(codec, (QUESTION, stand_in()), (AGAIN,), codec.tokenizer.convert_tokens_to_ids("a"))
    assert codec.decode(given).startswith("<|im_end|>\n<|im_start|>user\nNo.")
    closed = tokens_between(codec, (QUESTION, stand_in()), (AGAIN,), codec.stop_token_ids[0])
    assert given[1:] == closed


@pytest.mark.parametrize("name", ENDS)
def test_templates_of_ours_may_be_used(name: str):
    check_template(codec_of(name), with_tools=False)
    if name in WITH_TOOLS:
        check_template(codec_of(name), with_tools=True)


FORGETS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.last %}<think>\n\n</think>\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDLESS = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "


def test_a_template_that_rewrites_earlier_turns_is_refused():
    codec = TextCodec(tiny_codec().tokenizer, FORGETS)
    with pytest.raises(ModelError, match=r"rewrites earlier turns.*--set model\.chat_template=NAME"):
        check_template(codec, with_tools=False)
    with pytest.raises(ModelError, match="rewrites an earlier turn when another follows"):
        tokens_between(codec, (QUESTION, stand_in()), (AGAIN,), None)


def test_a_template_that_ends_no_turn_is_refused():
    codec = TextCodec(tiny_codec().tokenizer, ENDLESS)
    with pytest.raises(ModelError, match="writes no token that ends an answer"):
        tokens_between(codec, (QUESTION, stand_in()), (AGAIN,), None)


def test_a_template_without_tools_is_refused_for_them():
    with pytest.raises(ModelError, match="no place for"):
        check_template(codec_of("chatml"), with_tools=True)
