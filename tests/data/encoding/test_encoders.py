"""Encoders of samples, pairs and prompts: what they make of each kind of record."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from llmkit.config.schema import DataConfig, PromptDataConfig, SFTDataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Encoded, Encoder
from llmkit.data.encoders import PairEncoder, PromptEncoder, SampleEncoder
from llmkit.errors import DataError, ModelError
from llmkit.types import Message, Record, Sample, Source

Codecs = Callable[[str], TextCodec]
Tokenizers = Callable[[str], PreTrainedTokenizerFast]
Conversation = Callable[..., Record]
Encode = Callable[..., Sample]
Shown = Callable[..., str]
SOURCE = Source("rows.jsonl", 3)
GOOD, BAD = (Message("assistant", "good"),), (Message("assistant", "bad one"),)


def only(encoder: Encoder[Any], record: Record) -> Encoded[Any]:
    (result,) = encoder([record])
    if isinstance(result, DataError):
        raise result
    return result


def test_one_result_for_each_record_in_order(codec_of: Codecs, conversation: Conversation):
    encoder = SampleEncoder(codec_of("chatml"), SFTDataConfig(max_length=30, overlength="drop"))
    records = [
        conversation("user:q", "assistant:a"),
        conversation("user:q"),
        conversation("user:\ud800", "assistant:a"),
        conversation("user:" + "long " * 30, "assistant:a"),
        Record((), SOURCE, text="plain"),
        Record((), SOURCE, tokens=Sample([5, 6], [1.0, 1.0], SOURCE)),
        conversation("user:q", "assistant:b"),
    ]
    results = encoder(records)
    kinds = [type(result).__name__ if isinstance(result, DataError) else result.outcome for result in results]
    assert kinds == ["kept", "DataError", "DataError", "dropped", "kept", "kept", "kept"]
    for record, result in zip(records, results, strict=True):
        (alone,) = encoder([record])
        assert str(alone) == str(result)
    assert encoder([]) == []


def test_counts_are_of_the_items(codec_of: Codecs, conversation: Conversation):
    result = only(SampleEncoder(codec_of("chatml"), SFTDataConfig()), conversation("user:q", "assistant:a"))
    (sample,) = result.items
    assert (result.num_tokens, result.num_trained) == (len(sample.token_ids), 2)


def test_a_pair_shares_its_prompt_and_trains_the_answers(codec_of: Codecs, trained_text: Shown):
    codec = codec_of("chatml")
    prompt = (Message("user", "one"), Message("assistant", "earlier"), Message("user", "two"))
    result = only(PairEncoder(codec, DataConfig()), Record(prompt, SOURCE, chosen=GOOD, rejected=BAD))
    (pair,) = result.items
    prompt_ids = codec.prompt_ids(prompt)
    for sample, answer in ((pair.chosen, "good<|im_end|>"), (pair.rejected, "bad one<|im_end|>")):
        assert sample.token_ids[: len(prompt_ids)] == prompt_ids
        assert trained_text(codec, sample) == answer
    assert result.num_tokens == len(pair.chosen.token_ids) + len(pair.rejected.token_ids)


def test_a_pair_is_not_a_conversation_and_the_other_way_round(codec_of: Codecs, conversation: Conversation):
    codec = codec_of("chatml")
    pair = Record((Message("user", "q"),), SOURCE, GOOD, BAD)
    with pytest.raises(DataError, match=r"^rows\.jsonl:3: this row is a preference pair; .*llmkit train dpo"):
        only(SampleEncoder(codec, SFTDataConfig()), pair)
    with pytest.raises(DataError, match=r"^train\.jsonl:17: no chosen and rejected"):
        only(PairEncoder(codec, DataConfig()), conversation("user:q", "assistant:a"))


def test_an_answer_that_is_labelled_as_bad_is_not_taught(codec_of: Codecs):
    encoder = SampleEncoder(codec_of("chatml"), SFTDataConfig())
    messages = (Message("user", "q"), Message("assistant", "a"))
    with pytest.raises(DataError, match=r"^rows\.jsonl:3: this row's answer is labelled as a bad one.*on_error=skip"):
        only(encoder, Record(messages, SOURCE, label=False))
    assert only(encoder, Record(messages, SOURCE, label=True)) == only(encoder, Record(messages, SOURCE))


def test_a_prompt_is_kept_when_a_completion_fits(codec_of: Codecs, conversation: Conversation):
    codec, record = codec_of("chatml"), conversation("user:q", "assistant:the answer is left out")
    length = len(codec.prompt_ids(record.messages[:1]))
    kept = only(PromptEncoder(codec, PromptDataConfig(max_length=length + 10), 10), record)
    assert kept == Encoded((record,), "kept", length, 0)
    with pytest.raises(
        DataError,
        match=rf"^train\.jsonl:17: a prompt of {length} tokens and sampling\.max_new_tokens=11 .*overlength=drop",
    ):
        only(PromptEncoder(codec, PromptDataConfig(max_length=length + 10), 11), record)
    dropping = PromptEncoder(codec, PromptDataConfig(max_length=length + 10, overlength="drop"), 11)
    assert only(dropping, record) == Encoded((), "dropped")


def test_plain_text_is_trained_without_a_template(tokenizer_of: Tokenizers, encode: Encode):
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = None
    codec = TextCodec(tokenizer)
    sample = encode(codec, Record((), SOURCE, text="What is it? <|im_end|>"), train_on="assistant")
    assert codec.decode(sample.token_ids) == "What is it? <|im_end|><|endoftext|>"
    assert sample.token_ids.count(tokenizer.eos_token_id) == 1
    (end_of_turn,) = tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    assert end_of_turn not in sample.token_ids
    assert sample.loss_weights == [0.0] + [1.0] * (len(sample.token_ids) - 1)
    with pytest.raises(ModelError, match="no chat template"):
        encode(codec, Record((Message("user", "q"), Message("assistant", "a")), SOURCE))


def test_plain_text_begins_as_the_tokenizer_begins_it(tokenizer_of: Tokenizers, encode: Encode):
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_of("llama3")
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    sample = encode(TextCodec(tokenizer), Record((), SOURCE, text="four"))
    assert sample.token_ids == [
        begin,
        *tokenizer("four", add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]
    assert sample.loss_weights == [0.0] + [1.0] * (len(sample.token_ids) - 1)


def test_special_tokens_in_plain_text_can_be_honoured(tokenizer_of: Tokenizers, encode: Encode):
    codec = TextCodec(tokenizer_of("chatml"), special_tokens_in_text=True)
    (end_of_turn,) = codec.tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    assert end_of_turn in encode(codec, Record((), SOURCE, text="a<|im_end|>")).token_ids


def test_tokens_are_used_as_they_are(codec_of: Codecs, encode: Encode):
    tokens = Sample([5, 6, 7], [1.0, 0.5, 0.0], SOURCE)
    sample = encode(codec_of("chatml"), Record((), SOURCE, tokens=tokens))
    assert (sample.token_ids, sample.loss_weights) == ([5, 6, 7], [0.0, 0.5, 0.0])
    # The row's own weights stay as they were.
    assert tokens.loss_weights == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("ids", "weights", "message"),
    [
        ([], [], "the row has no tokens"),
        ([1, 2], [1.0], "2 token ids and 1 loss weights"),
        ([1, 317], [0.0, 1.0], r"token id 317 at position 1 .*which has 317.*model\.tokenizer"),
        ([1, -1], [0.0, 1.0], "token id -1 at position 1"),
    ],
)
def test_tokens_that_cannot_be_are_told(
    codec_of: Codecs, encode: Encode, ids: list[int], weights: list[float], message: str
):
    with pytest.raises(DataError, match=rf"^rows\.jsonl:3: .*{message}"):
        encode(codec_of("chatml"), Record((), SOURCE, tokens=Sample(ids, weights, SOURCE)))


def test_an_empty_text_is_told(codec_of: Codecs, encode: Encode):
    with pytest.raises(DataError, match=r"^rows\.jsonl:3: the text is empty"):
        encode(codec_of("chatml"), Record((), SOURCE, text=""))


def test_encoders_travel_to_other_processes(tokenizer_of: Tokenizers, conversation: Conversation):
    codec = TextCodec(tokenizer_of("chatml"), "{% for m in messages %}{{ m.content }};{% endfor %}")
    pair = Record((Message("user", "q"),), SOURCE, GOOD, BAD)
    for encoder, record in (
        (SampleEncoder(codec, SFTDataConfig(train_on="all")), conversation("user:q", "assistant:a")),
        (PairEncoder(codec, DataConfig()), pair),
        (PromptEncoder(codec, PromptDataConfig(), 5), conversation("user:q")),
    ):
        again = pickle.loads(pickle.dumps(encoder))
        assert again([record]) == encoder([record])
        assert again.fingerprint() == encoder.fingerprint()


def test_fingerprints_differ_with_everything_that_decides_tokens(tokenizer_of: Tokenizers):
    def codec(
        change: Callable[[PreTrainedTokenizerFast], object] = lambda tokenizer: None, **options: Any
    ) -> TextCodec:
        tokenizer = tokenizer_of("chatml")
        change(tokenizer)
        return TextCodec(tokenizer, **options)

    encoders = [
        SampleEncoder(codec(), SFTDataConfig()),
        SampleEncoder(codec(lambda tokenizer: tokenizer.add_tokens(["four"])), SFTDataConfig()),
        SampleEncoder(codec(lambda tokenizer: setattr(tokenizer, "bos_token", "<|im_start|>")), SFTDataConfig()),
        SampleEncoder(codec(chat_template="{{ messages }}"), SFTDataConfig()),
        SampleEncoder(codec(special_tokens_in_text=True), SFTDataConfig()),
        SampleEncoder(TextCodec(tokenizer_of("llama3")), SFTDataConfig()),
        SampleEncoder(codec(), SFTDataConfig(train_on="all")),
        SampleEncoder(codec(), SFTDataConfig(train_end_of_turn=False)),
        SampleEncoder(codec(), SFTDataConfig(max_length=100)),
        SampleEncoder(codec(), SFTDataConfig(overlength="split")),
        SampleEncoder(codec(), SFTDataConfig(untrained="drop")),
        PairEncoder(codec(), DataConfig()),
        PromptEncoder(codec(), PromptDataConfig(), 5),
        PromptEncoder(codec(), PromptDataConfig(), 6),
    ]
    assert len({encoder.fingerprint() for encoder in encoders}) == len(encoders)


def test_fingerprints_do_not_differ_with_anything_else(tokenizer_of: Tokenizers):
    tokenizer = tokenizer_of("chatml")
    fingerprint = SampleEncoder(TextCodec(tokenizer), SFTDataConfig()).fingerprint()
    # A call leaves its truncation with the tokenizer, which no encoder uses.
    tokenizer(["a", "b c d"], truncation=True, max_length=2)
    assert tokenizer.backend_tokenizer.truncation is not None
    again = SampleEncoder(TextCodec(tokenizer), SFTDataConfig(num_workers=4, shuffle=False, on_error="skip"))
    assert again.fingerprint() == fingerprint
