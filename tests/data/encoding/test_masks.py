"""Which tokens carry loss, and how much."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llmkit.config.schema import SFTDataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Encoded
from llmkit.data.encoders import SampleEncoder
from llmkit.errors import DataError
from llmkit.types import Message, Part, Record, Sample, Source

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


def test_a_template_that_rewrites_content_asks_for_markers(
    tokenizer_of: Tokenizers, conversation: Conversation, encode: Encode
):
    shouting = "{% for m in messages %}{{ m.content | length }}{{ loop.last }}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(DataError, match=r"^train\.jsonl:17: .*generation"):
        encode(TextCodec(tokenizer_of("chatml"), shouting), conversation("user:q", "assistant:a"))


@pytest.mark.parametrize("family", ["chatml", "llama3", "mistral", "plain"])
def test_weights_are_those_of_a_slow_encoder_whose_steps_are_plain(
    codec_of: Codecs, slow_sample: Callable, real_conversations: list[tuple[Message, ...]], family: str
):
    codec = codec_of(family)
    records = [Record(messages, Source("real", 1 + line)) for line, messages in enumerate(real_conversations)]
    results = SampleEncoder(codec, SFTDataConfig(max_length=1 << 20))(records)
    for record, result in zip(records, results, strict=True):
        assert isinstance(result, Encoded), result
        expected = slow_sample(codec, record.messages)
        assert result.items[0].token_ids == expected.token_ids
        assert result.items[0].loss_weights == expected.loss_weights, record.messages


@settings(deadline=None, max_examples=100)
@given(messages=DIALOGUES)
@pytest.mark.parametrize("family", ["chatml", "plain"])
def test_any_text_has_the_weights_of_the_slow_encoder(
    codec_of: Codecs, slow_sample: Callable, encode: Encode, family: str, messages: list[Message]
):
    codec = codec_of(family)
    # White space around contents is where the two would differ in what they count to the turn's end.
    messages = [Message(m.role, f"a{m.text}b") for m in messages if "<|" not in m.text] + [Message("assistant", "yes")]
    sample = encode(codec, Record(tuple(messages), Source("train.jsonl", 1)))
    expected = slow_sample(codec, messages)
    assert (sample.token_ids, sample.loss_weights) == (expected.token_ids, expected.loss_weights)


@pytest.mark.parametrize(
    ("family", "trained"),
    [
        ("chatml", "four.|Four and four."),
        ("chatml_marked", "four.|Four and four."),
        ("llama3", "four.|Four and four."),
        ("phi", "four.|Four and four."),
        # No special token ends the turn: there is nothing to leave out.
        ("plain", " four.\n\n|Four and four.\n\n"),
    ],
)
def test_the_end_of_a_turn_can_be_left_out(
    codec_of: Codecs, conversation: Conversation, encode: Encode, trained_text: Shown, family: str, trained: str
):
    codec = codec_of(family)
    sample = encode(codec, conversation(*TWO_TURNS), train_end_of_turn=False)
    assert trained_text(codec, sample) == trained


def test_the_end_of_a_turn_can_be_left_out_when_all_is_trained(
    codec_of: Codecs, conversation: Conversation, encode: Encode, trained_text: Shown
):
    codec = codec_of("chatml")
    record = conversation("user:q", "assistant:a <|im_end|>")
    sample = encode(codec, record, train_on="all", train_end_of_turn=False)
    # The end that the content spells is text; the question's end is no assistant's.
    assert trained_text(codec, sample, 0.0) == "<|im_start|>|<|im_end|>"
    assert trained_text(codec, sample) == "user\nq<|im_end|>\n<|im_start|>assistant\na <|im_end|>|\n"


def parted(*parts: tuple[str, float | None], role: str = "assistant", weight: float | None = None) -> Message:
    return Message(role, tuple(Part(text=text, weight=part) for text, part in parts), weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["chatml", "chatml_marked", "llama3", "qwen3"])
def test_a_part_has_its_own_weight(
    codec_of: Codecs, conversation: Conversation, encode: Encode, trained_text: Shown, family: str
):
    codec = codec_of(family)
    answer = parted(("yes.", None), ("(no)", 0.0), ("maybe", 0.5))
    sample = encode(codec, conversation("user:q", answer))
    end = codec.template.end_of_turn
    assert trained_text(codec, sample).endswith(f"yes.|{end}")
    assert trained_text(codec, sample, 0.5) == "maybe"
    plain = encode(codec, conversation("user:q", "assistant:yes.(no)maybe"))
    assert sample.token_ids == plain.token_ids


def test_a_part_of_what_the_user_says_can_train(
    codec_of: Codecs, conversation: Conversation, encode: Encode, trained_text: Shown
):
    codec = codec_of("chatml")
    sample = encode(codec, conversation(parted(("q ", None), ("this", 1.0), role="user"), "assistant:a"))
    # " this" is one token, and straddles the boundary.
    assert trained_text(codec, sample) == " this|a<|im_end|>"


def test_a_part_keeps_the_white_space_between_parts(
    codec_of: Codecs, conversation: Conversation, encode: Encode, trained_text: Shown
):
    codec = codec_of("llama3")
    answer = parted(("  one,", 0.0), ("\t.\t", 0.5), ("two  ", None))
    sample = encode(codec, conversation("user:q", answer))
    assert trained_text(codec, sample, 0.5) == "\t.\t"
    # The template trims the white space at both ends.
    assert trained_text(codec, sample) == "two<|eot_id|>"


def test_an_answer_with_an_unclosed_flood_of_text_takes_linear_time(
    codec_of: Codecs, conversation: Conversation, encode: Encode
):
    # Searching this for the end of reasoning from every place in it took minutes.
    answer = "x" * 200_000
    started = time.process_time()
    sample = encode(codec_of("qwen3"), conversation("user:q", f"assistant:{answer}", "user:q", "assistant:a"))
    assert time.process_time() - started < 20
    assert sum(sample.loss_weights) > 100_000


def test_markers_in_a_block_that_changes_its_text_are_not_trusted(
    tokenizer_of: Tokenizers, conversation: Conversation, encode: Encode, trained_text: Shown
):
    # The filter trims what the markers enclose; a mark at its edge would keep the white space.
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% filter trim %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% endfilter %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    codec = TextCodec(tokenizer_of("chatml"), template)
    record = conversation("user: q ", "assistant:  yes  ")
    sample = encode(codec, record)
    assert codec.decode(sample.token_ids) == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
    assert trained_text(codec, sample) == "yes<|im_end|>"
