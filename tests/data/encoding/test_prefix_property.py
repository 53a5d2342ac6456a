from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from llmkit.data.chat.builtin_templates import read_template
from llmkit.data.chat.prefix_property import check_prefix_property
from llmkit.data.codec import TextCodec

Tokenizers = Callable[[str], PreTrainedTokenizerFast]


@pytest.mark.parametrize("family", ["chatml", "llama3"])
def test_it_holds_for_templates_that_keep_turns_as_they_are(codec_of: Callable[[str], TextCodec], family: str):
    report = check_prefix_property(codec_of(family))
    assert report.holds
    assert str(report) == "The chat template keeps earlier turns as they are."


@pytest.mark.parametrize(
    ("family", "violation"),
    [
        ("qwen3", "3 turns do not begin as 2 do"),
        ("phi", "2 turns do not begin as 1 do"),
        # GPT-2 reads "\n\n" as one token at the end of a prompt, and as two before a word.
        ("llama3_gpt2", "the last token of the prompt after 1 turns runs into the first one of the answer"),
        ("mistral", "the last token of the prompt after 1 turns runs into the first one of the answer"),
    ],
)
def test_violations_are_told(codec_of: Callable[[str], TextCodec], family: str, violation: str):
    report = check_prefix_property(codec_of(family))
    assert not report.holds
    assert violation in str(report)


def test_calls_of_tools_and_reasoning_are_probed_where_there_is_a_place(tokenizer_of: Tokenizers):
    qwen = read_template("qwen")
    assert check_prefix_property(TextCodec(tokenizer_of("chatml"), qwen)).holds
    # Reasoning of earlier turns is dropped, and schemas of tools stand behind the last message.
    forgetful = qwen.replace("{%- if message.reasoning_content %}", "{%- if message.reasoning_content and loop.last %}")
    report = check_prefix_property(TextCodec(tokenizer_of("chatml"), forgetful))
    assert report.violations == ("With reasoning apart from the answer, 3 turns do not begin as 2 do.",)
    late = qwen.replace("{%- if add_gen", "{{- tools | tojson if tools else '' }}{%- if add_gen")
    report = check_prefix_property(TextCodec(tokenizer_of("chatml"), late))
    assert report.violations == ("With calls of tools, 2 turns do not begin as 1 do.",)


def test_the_verdict_is_one_line(codec_of: Callable[[str], TextCodec]):
    for family in ("chatml", "qwen3", "phi", "mistral"):
        assert "\n" not in str(check_prefix_property(codec_of(family)))


def test_a_tokenizer_without_template_has_nothing_to_check(tokenizer_of: Tokenizers):
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = None
    report = check_prefix_property(TextCodec(tokenizer))
    assert report.holds
    assert str(report).startswith("The tokenizer has no chat template: ")
