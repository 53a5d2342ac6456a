"""Which tokens carry loss, and how much."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llmkit.data.codec import TextCodec
from llmkit.errors import DataError
from llmkit.types import Message, Record, Sample, Source

Codecs = Callable[[str], TextCodec]
Tokenizers = Callable[[str], PreTrainedTokenizerFast]
Conversation = Callable[..., Record]
Encode = Callable[..., Sample]
Shown = Callable[..., str]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
DIALOGUES = st.lists(TEXT, min_size=1, max_size=5).map(
    lambda texts: [Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate([*texts, "end"])]
)
TWO_TURNS = ("user:What is two and two?", "assistant:four.", "user:What?", "assistant:Four and four.")


@pytest.mark.parametrize(
    ("family", "trained"),
    [
        ("chatml", "four.<|im_end|>|Four and four.<|im_end|>"),
        ("chatml_marked", "four.<|im_end|>|Four and four.<|im_end|>"),
        ("last_answer_marked", "Four and four.<|im_end|>"),
        ("llama3", "four.<|eot_id|>|Four and four.<|eot_id|>"),
        # " four" is one token, which straddles the boundary, and is trained; " " and "F" are two.
        ("mistral", " four.</s>|Four and four.</s>"),
        ("qwen3", "four.<|im_end|>|<think>\n\n</think>\n\nFour and four.<|im_end|>"),
        ("phi", "four.<|end|>|Four and four.<|end|>"),
        # So does ".\n\n" at the other end, where no special token ends the turn.
        ("plain", " four.\n\n|Four and four.\n\n"),
    ],
)
def test_assistant_turns_are_trained_through_their_end_token(
    codec_of: Codecs, conversation: Conversation, family: str, trained: str, encode: Encode, trained_text: Shown
):
    codec = codec_of(family)
    sample = encode(codec, conversation(*TWO_TURNS))
    assert trained_text(codec, sample) == trained
    assert set(sample.loss_weights) == {0.0, 1.0}


@settings(deadline=None, max_examples=200)
@given(messages=DIALOGUES)
@pytest.mark.parametrize("family", ["chatml_marked", "last_answer_marked"])
def test_marked_templates_train_what_transformers_says(
    codec_of: Codecs, tokenizer_of: Tokenizers, family: str, messages: list[Message], encode: Encode
):
    codec = codec_of(family)
    messages = messages if messages[-1].role == "assistant" else [*messages, Message("assistant", "yes")]
    turns = [{"role": message.role, "content": message.content} for message in messages]
    expected = codec.tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    sample = encode(codec, Record(tuple(messages), Source("train.jsonl", 1)))
    assert sample.token_ids == expected["input_ids"]
    assert sample.loss_weights == [float(flag) for flag in expected["assistant_masks"]]


@settings(deadline=None, max_examples=200)
@given(messages=DIALOGUES)
def test_templates_with_and_without_markers_agree(codec_of: Codecs, messages: list[Message], encode: Encode):
    messages = messages if messages[-1].role == "assistant" else [*messages, Message("assistant", "yes")]
    record = Record(tuple(messages), Source("train.jsonl", 1))
    assert encode(codec_of("chatml"), record) == encode(codec_of("chatml_marked"), record)


@settings(deadline=None, max_examples=100)
@given(messages=DIALOGUES)
@pytest.mark.parametrize("family", ["chatml", "llama3", "mistral", "phi", "plain"])
def test_a_prompt_and_its_answer_are_the_whole(codec_of: Codecs, family: str, messages: list[Message], encode: Encode):
    codec = codec_of(family)
    messages = messages if messages[-1].role == "assistant" else [*messages, Message("assistant", "yes")]
    sample = encode(codec, Record(tuple(messages), Source("train.jsonl", 1)), train_on="last_turn")
    first = next(index for index, weight in enumerate(sample.loss_weights) if weight)
    prompt = codec.decode(codec.prompt_ids(messages[:-1]))
    # The first trained token begins where the prompt ends, or straddles that place.
    assert len(codec.decode(sample.token_ids[:first])) <= len(prompt)
    assert codec.decode(sample.token_ids).startswith(prompt)


def test_last_turn_trains_what_follows_the_last_question(
    codec_of: Codecs, conversation: Conversation, encode: Encode, trained_text: Shown
):
    codec = codec_of("chatml")
    record = conversation("user:one", "assistant:a", "user:two", "assistant:b", "tool:t", "assistant:c")
    assert trained_text(codec, encode(codec, record, train_on="last_turn")) == "b<|im_end|>|c<|im_end|>"
    asking = conversation("user:one", "assistant:a", "user:two")
    assert trained_text(codec, encode(codec, asking, train_on="last_turn")) == "a<|im_end|>"


@pytest.mark.parametrize("family", ["chatml", "chatml_marked", "llama3"])
def test_all_trains_every_token_but_the_first(
    codec_of: Codecs, conversation: Conversation, family: str, encode: Encode
):
    sample = encode(codec_of(family), conversation(*TWO_TURNS), train_on="all")
    assert sample.loss_weights == [0.0] + [1.0] * (len(sample.token_ids) - 1)


@pytest.mark.parametrize("family", ["chatml", "chatml_marked", "llama3", "mistral", "qwen3"])
def test_a_messages_own_weight_comes_first(
    codec_of: Codecs, conversation: Conversation, family: str, encode: Encode, trained_text: Shown
):
    codec = codec_of(family)
    record = conversation(
        "user:one", Message("assistant", "bad", 0.0), Message("user", "two", 0.5), Message("assistant", "good", 2.0)
    )
    sample = encode(codec, record)
    assert set(sample.loss_weights) == {0.0, 0.5, 2.0}
    assert "two" in trained_text(codec, sample, 0.5)
    assert "good" in trained_text(codec, sample, 2.0)
    assert trained_text(codec, sample, 1.0) == ""


def test_a_message_can_be_left_out_when_all_is_trained(
    codec_of: Codecs, conversation: Conversation, encode: Encode, trained_text: Shown
):
    codec = codec_of("chatml")
    sample = encode(codec, conversation(Message("user", "secret", 0.0), "assistant:yes"), train_on="all")
    assert trained_text(codec, sample, 0.0) == "<|im_start|>|secret<|im_end|>"
    assert "secret" not in trained_text(codec, sample, 1.0)


def test_reasoning_is_trained_where_the_template_shows_it(
    codec_of: Codecs, conversation: Conversation, encode: Encode, trained_text: Shown
):
    codec = codec_of("qwen3")
    answer = "assistant:<think>\nhm, two.\n</think>\n\nFour."
    sample = encode(codec, conversation("user:what?", answer, "user:sure?", answer))
    assert trained_text(codec, sample) == "Four.<|im_end|>|<think>\nhm, two.\n</think>\n\nFour.<|im_end|>"


def test_an_assistant_that_speaks_first_is_trained(
    codec_of: Codecs, conversation: Conversation, encode: Encode, trained_text: Shown
):
    codec = codec_of("chatml")
    sample = encode(codec, conversation("assistant:Hello.", "user:Hi", "assistant:What?"))
    assert trained_text(codec, sample) == "Hello.<|im_end|>|What?<|im_end|>"


def test_a_template_that_rewrites_content_asks_for_markers(tokenizer_of: Tokenizers, conversation: Conversation):
    shouting = "{% for m in messages %}{{ m.content | length }}{{ loop.last }}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(DataError, match=r"^train\.jsonl:17: .*generation"):
        TextCodec(tokenizer_of("chatml"), shouting).sample(conversation("user:q", "assistant:a"))
