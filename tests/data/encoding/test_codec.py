"""Conversations to ids and back to text."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llmkit.data.codec import TextCodec
from llmkit.errors import DataError, ModelError
from llmkit.types import Message, Record, Sample, Source

Codecs = Callable[[str], TextCodec]
Tokenizers = Callable[[str], PreTrainedTokenizerFast]
Conversation = Callable[..., Record]
Encode = Callable[..., Sample]
Shown = Callable[..., str]
TWO_TURNS = ("user:What is two and two?", "assistant:four.", "user:What?", "assistant:Four and four.")


@pytest.mark.parametrize(
    "family", ["chatml", "chatml_marked", "last_answer_marked", "llama3", "mistral", "qwen3", "phi", "plain"]
)
def test_ids_are_those_of_apply_chat_template(
    codec_of: Codecs, tokenizer_of: Tokenizers, conversation: Conversation, family: str, encode: Encode
):
    record = conversation(*TWO_TURNS)
    turns = [{"role": message.role, "content": message.content} for message in record.messages]
    expected = tokenizer_of(family).apply_chat_template(turns, return_dict=True)["input_ids"]
    assert encode(codec_of(family), record).token_ids == expected
    assert codec_of(family).conversation_ids(record.messages) == expected
    prompt = tokenizer_of(family).apply_chat_template(turns[:3], return_dict=True, add_generation_prompt=True)
    assert codec_of(family).prompt_ids(record.messages[:3]) == prompt["input_ids"]


def test_a_row_without_messages_is_an_error(codec_of: Codecs, encode: Encode):
    with pytest.raises(DataError, match=r"^train\.jsonl:17: the row has no messages"):
        encode(codec_of("chatml"), Record((), Source("train.jsonl", 17)))


def test_a_template_that_raises_names_the_row(codec_of: Codecs, conversation: Conversation, encode: Encode):
    record = conversation("system:s", "user:q", "assistant:a")
    with pytest.raises(
        DataError, match=r"^train\.jsonl:17: the chat template of tiny-mistral refuses .*must alternate"
    ):
        encode(codec_of("mistral"), record)
    with pytest.raises(DataError, match=r"^x:1: .*must alternate"):
        codec_of("mistral").prompt_ids(record.messages, Source("x", 1))


def test_half_a_surrogate_pair_names_the_row(codec_of: Codecs, conversation: Conversation, encode: Encode):
    with pytest.raises(DataError, match=r"^train\.jsonl:17: the content has the character U\+D83D"):
        encode(codec_of("chatml"), conversation("user:\ud83d", "assistant:a"))


def test_another_template_takes_the_place_of_the_tokenizers(tokenizer_of: Tokenizers, conversation: Conversation):
    codec = TextCodec(tokenizer_of("chatml"), "{% for m in messages %}{{ m.role + '=' + m.content + ';' }}{% endfor %}")
    assert codec.decode(codec.conversation_ids(conversation("user:q", "assistant:a").messages)) == "user=q;assistant=a;"


def test_a_template_with_a_syntax_error_names_the_line(tokenizer_of: Tokenizers):
    with pytest.raises(ModelError, match=r"not valid Jinja: line 2: .*model\.chat_template"):
        TextCodec(tokenizer_of("chatml"), "{# fine #}\n{% for m in %}")


@pytest.mark.parametrize(
    ("family", "tokens"),
    [
        ("chatml", ["<|im_end|>", "<|endoftext|>"]),
        ("llama3", ["<|eot_id|>"]),
        ("mistral", ["</s>"]),
        ("phi", ["<|end|>", "<|endoftext|>"]),
        ("plain", ["<|endoftext|>"]),
    ],
)
def test_stop_tokens_end_a_turn_or_the_text(codec_of: Codecs, family: str, tokens: list[str]):
    codec = codec_of(family)
    assert [codec.decode([token_id]) for token_id in codec.stop_token_ids] == tokens


def test_without_a_stop_token_nothing_can_be_sampled(tokenizer_of: Tokenizers):
    tokenizer = tokenizer_of("plain")
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"^tiny-plain: no token ends an answer"):
        TextCodec(tokenizer).stop_token_ids  # noqa: B018 - it is a property


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_pieces_joined_are_the_text(codec_of: Codecs, text: str):
    codec = codec_of("chatml")
    ids = codec.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert isinstance(ids, list)
    pieces = codec.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == codec.decode(ids) == text


@settings(deadline=None, max_examples=200)
@given(ids=st.lists(st.integers(0, 300), max_size=30))
def test_pieces_of_any_tokens_are_their_text(codec_of: Codecs, ids: list[int]):
    codec = codec_of("chatml")
    assert "".join(codec.pieces(ids)) == codec.decode(ids)


def test_decode_can_leave_out_special_tokens(codec_of: Codecs):
    codec = codec_of("chatml")
    ids = codec.prompt_ids([Message("user", "What?")])
    assert codec.decode(ids) == "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    assert codec.decode(ids, skip_special_tokens=True) == "user\nWhat?\nassistant\n"


def test_a_tokenizer_without_template_says_how_to_give_one(tokenizer_of: Tokenizers):
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = None
    codec = TextCodec(tokenizer)
    with pytest.raises(ModelError, match=r"^tiny-chatml: .*no chat template.*--set model\.chat_template=NAME"):
        codec.prompt_ids([Message("user", "q")])
    assert codec.decode(codec.stop_token_ids) == "<|endoftext|>"


def test_two_templates_by_name_are_for_conversations_with_and_without_tools(tokenizer_of: Tokenizers):
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = {
        "default": "{% for m in messages %}{{ m.content }};{% endfor %}",
        "tool_use": "{{ tools[0].function.name }}:{% for m in messages %}{{ m.content }};{% endfor %}",
    }
    codec = TextCodec(tokenizer)
    tools = '[{"type": "function", "function": {"name": "add"}}]'
    assert codec.decode(codec.conversation_ids([Message("user", "q")])) == "q;"
    assert codec.decode(codec.conversation_ids([Message("user", "q")], tools=tools)) == "add:q;"


def test_settings_of_the_tokenizer_for_other_uses_change_nothing(tokenizer_of: Tokenizers):
    tokenizer = tokenizer_of("chatml")
    expected = TextCodec(tokenizer).conversation_ids([Message("user", "one two three four")])
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    assert TextCodec(tokenizer).conversation_ids([Message("user", "one two three four")]) == expected
