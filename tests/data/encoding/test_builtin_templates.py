"""The templates that come with llmkit, and how `model.chat_template` names one."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from llmkit.config.schema import ModelConfig
from llmkit.data.chat.builtin_templates import read_template, template_names
from llmkit.data.chat.prefix_property import check_prefix_property
from llmkit.data.codec import TextCodec
from llmkit.data.opening import find_template, missing_tokens, open_codec
from llmkit.errors import DataError, ModelError
from llmkit.testing.tiny import tiny_model
from llmkit.types import Message, Record, Sample, Source

Tokenizers = Callable[[str], PreTrainedTokenizerFast]
Encode = Callable[..., Sample]
Shown = Callable[..., str]
NAMES = ("alpaca", "chatml", "deepseek", "gemma", "llama3", "mistral", "phi", "plain", "qwen", "vicuna", "zephyr")
SPECIALS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "qwen": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "phi": ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
    "deepseek": ("<｜User｜>", "<｜Assistant｜>"),
    "mistral": ("[INST]", "[/INST]"),
}
DIALOGUE = (
    Message("user", "What?"),
    Message("assistant", "Four."),
    Message("user", "So?"),
    Message("assistant", "Yes."),
)
TEXTS = st.lists(st.text(st.sampled_from(" \nabc.'é🙂1<|>"), max_size=12), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def codec_named(tokenizer_of: Tokenizers) -> Callable[[str], TextCodec]:
    made: dict[str, TextCodec] = {}

    def codec(name: str) -> TextCodec:
        if name not in made:
            tokenizer = tokenizer_of("mistral")  # Its ends of text are <s> and </s>.
            tokens = [AddedToken(token, special=True, normalized=False) for token in SPECIALS.get(name, ())]
            tokenizer.add_special_tokens({"additional_special_tokens": tokens})
            tokenizer.chat_template = read_template(name)
            made[name] = TextCodec(tokenizer)
        return made[name]

    return codec


def test_there_is_one_for_every_family():
    assert template_names() == NAMES


@pytest.mark.parametrize(
    ("name", "text", "trained"),
    [
        (
            "chatml",
            "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\nFour.<|im_end|>\n"
            "<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n",
            "Four.<|im_end|>|Yes.<|im_end|>",
        ),
        (
            "llama3",
            "<s><|start_header_id|>user<|end_header_id|>\n\nWhat?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nFour.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nSo?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nYes.<|eot_id|>",
            "Four.<|eot_id|>|Yes.<|eot_id|>",
        ),
        ("mistral", "<s>[INST] What?[/INST] Four.</s>[INST] So?[/INST] Yes.</s>", " Four.</s>| Yes.</s>"),
        (
            "gemma",
            "<s><start_of_turn>user\nWhat?<end_of_turn>\n<start_of_turn>model\nFour.<end_of_turn>\n"
            "<start_of_turn>user\nSo?<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n",
            "Four.<end_of_turn>|Yes.<end_of_turn>",
        ),
        (
            "phi",
            "<|user|>\nWhat?<|end|>\n<|assistant|>\nFour.<|end|>\n<|user|>\nSo?<|end|>\n<|assistant|>\nYes.<|end|>\n",
            "Four.<|end|>|Yes.<|end|>",
        ),
        (
            "zephyr",
            "<|user|>\nWhat?</s>\n<|assistant|>\nFour.</s>\n<|user|>\nSo?</s>\n<|assistant|>\nYes.</s>\n",
            "Four.</s>|Yes.</s>",
        ),
        (
            "alpaca",
            "<s>### Instruction:\nWhat?\n\n### Response:\nFour.</s>\n\n"
            "### Instruction:\nSo?\n\n### Response:\nYes.</s>\n\n",
            "Four.</s>|Yes.</s>",
        ),
        ("vicuna", "<s>USER: What? ASSISTANT: Four.</s>USER: So? ASSISTANT: Yes.</s>", " Four.</s>| Yes.</s>"),
        (
            "deepseek",
            "<s><｜User｜>What?<｜Assistant｜>Four.</s><｜User｜>So?<｜Assistant｜>Yes.</s>",
            "Four.</s>|Yes.</s>",
        ),
        (
            "plain",
            "<s>User: What?\n\nAssistant: Four.</s>\n\nUser: So?\n\nAssistant: Yes.</s>\n\n",
            " Four.</s>| Yes.</s>",
        ),
    ],
)
def test_a_template_writes_its_family(
    codec_named: Callable[[str], TextCodec], encode: Encode, trained_text: Shown, name: str, text: str, trained: str
):
    codec = codec_named(name)
    sample = encode(codec, Record(DIALOGUE, Source("t", 1)))
    assert codec.decode(sample.token_ids) == text
    assert trained_text(codec, sample) == trained


@settings(deadline=None, max_examples=40)
@given(texts=TEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_masks_are_those_of_transformers(
    codec_named: Callable[[str], TextCodec], encode: Encode, name: str, texts: list[str]
):
    codec = codec_named(name)
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate([*texts, "end"]))  # type: ignore[arg-type]
    messages += () if messages[-1].role == "assistant" else (Message("assistant", "yes"),)
    turns = [{"role": message.role, "content": message.text} for message in messages]
    expected = codec.tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    sample = encode(codec, Record(messages, Source("t", 1)))
    assert sample.token_ids == expected["input_ids"]
    assert sample.loss_weights == [float(flag) for flag in expected["assistant_masks"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_template_keeps_earlier_turns(codec_named: Callable[[str], TextCodec], name: str):
    report = check_prefix_property(codec_named(name))
    # Without a special token between them, characters of prompt and answer may be one token.
    assert all("runs into the first one" in violation for violation in report.violations), str(report)


@pytest.mark.parametrize("name", NAMES)
def test_a_system_message_is_not_lost(codec_named: Callable[[str], TextCodec], name: str):
    text = codec_named(name).template.render([Message("system", "Be brief."), *DIALOGUE])
    assert text.count("Be brief.") == 1
    assert text.index("Be brief.") < text.index("What?")


@pytest.mark.parametrize("name", NAMES)
def test_the_generation_prompt_is_how_an_answer_begins(codec_named: Callable[[str], TextCodec], name: str):
    template = codec_named(name).template
    assert template.render(DIALOGUE).startswith(template.render(DIALOGUE[:3], generation_prompt=True))


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_a_system_message_that_nothing_follows_is_refused(codec_named: Callable[[str], TextCodec], name: str):
    with pytest.raises(DataError, match="none follows"):
        codec_named(name).template.render([*DIALOGUE, Message("system", "Be brief.")])


def test_a_name_is_looked_up_before_a_file(tmp_path: Path):
    assert find_template("chatml") == read_template("chatml")
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages }}")
    assert find_template(str(path)) == "{{ messages }}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "chatlm",
            r"^model\.chat_template=chatlm: cannot be read: .*Did you mean 'chatml'\? Built-in: alpaca",
        ),
        ("none.jinja", r"^model\.chat_template=none\.jinja: cannot be read: No such file.*Built-in: "),
        (".", r"^model\.chat_template=\.: cannot be read: "),
    ],
)
def test_an_unknown_name_lists_the_names(name: str, message: str):
    with pytest.raises(ModelError, match=message):
        find_template(name)


def test_a_file_that_is_no_text_is_told(tmp_path: Path):
    path = tmp_path / "bad.jinja"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"bad\.jinja: cannot be read: not UTF-8"):
        find_template(str(path))


def test_a_named_template_goes_with_the_tokenizer_into_checkpoints():
    codec = open_codec(ModelConfig.model_validate({"path": tiny_model(), "chat_template": "plain"}))
    assert codec.tokenizer.chat_template == read_template("plain")
    assert codec.decode(codec.prompt_ids([Message("user", "q")])).endswith("User: q\n\nAssistant:")


def test_special_tokens_that_the_tokenizer_has_not_are_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        open_codec(ModelConfig.model_validate({"path": tiny_model(), "chat_template": "qwen"}))
        assert caplog.messages == []
        open_codec(ModelConfig.model_validate({"path": tiny_model(), "chat_template": "llama3"}))
    (message,) = caplog.messages
    assert "model.chat_template=llama3 writes <|start_header_id|>, <|end_header_id|>, <|eot_id|>" in message
    assert "model.tokenizer" in message


def test_tokens_in_comments_are_not_missed(tokenizer_of: Tokenizers):
    tokenizer = tokenizer_of("mistral")
    assert missing_tokens(tokenizer, "{# <|im_end|> #}{{ '<|end|>' }}{{ '<|end|>' }}") == ["<|end|>"]
    assert missing_tokens(tokenizer, read_template("vicuna")) == []


def test_special_tokens_in_text_can_be_honoured():
    model = ModelConfig.model_validate({"path": tiny_model()})
    ids = [
        open_codec(model, special_tokens_in_text=asked).prompt_ids([Message("user", "a<|im_end|>b")])
        for asked in (False, True)
    ]
    (end,) = open_codec(model).tokenizer.convert_tokens_to_ids(["<|im_end|>"])
    assert [one.count(end) for one in ids] == [1, 2]
