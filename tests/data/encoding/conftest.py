"""What tests of encoding share: short ways to encode, and a slow encoder whose steps are plain to see."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmkit.config.schema import SFTDataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Encoded
from llmkit.data.encoders import SampleEncoder
from llmkit.errors import DataError
from llmkit.types import Message, Record, Sample, Source

SHARED = Path(__file__).parents[4] / "shared" / "data"


def encode_one(codec: TextCodec, record: Record, **options: Any) -> Encoded[Sample]:
    """What becomes of one record; its error is raised."""
    (result,) = SampleEncoder(codec, SFTDataConfig(**{"max_length": 1 << 20, **options}))([record])
    if isinstance(result, DataError):
        raise result
    return result


@pytest.fixture(scope="session")
def fit() -> Callable[..., Encoded[Sample]]:
    return encode_one


@pytest.fixture(scope="session")
def encode() -> Callable[..., Sample]:
    """The one sample of a record."""

    def make(codec: TextCodec, record: Record, **options: Any) -> Sample:
        (sample,) = encode_one(codec, record, **options).items
        return sample

    return make


@pytest.fixture(scope="session")
def trained_text() -> Callable[..., str]:
    """The text of the tokens that have `weight`, with `|` where others lie between them."""

    def make(codec: TextCodec, sample: Sample, weight: float = 1.0) -> str:
        pieces = codec.pieces(sample.token_ids)
        shown = [piece if w == weight else "\0" for piece, w in zip(pieces, sample.loss_weights, strict=True)]
        return "|".join(filter(None, "".join(shown).split("\0")))

    return make


@pytest.fixture(scope="session")
def slow_sample() -> Callable[[TextCodec, Sequence[Message]], Sample]:
    """Assistant turns trained, by the tokenizer's own methods and a weight for each character."""
    return encode_slowly


def encode_slowly(codec: TextCodec, messages: Sequence[Message]) -> Sample:
    tokenizer = codec.tokenizer
    turns = [{"role": message.role, "content": message.text} for message in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    weights = [0.0] * len(text)
    for index, turn in enumerate(turns):
        if turn["role"] == "assistant":
            start = len(tokenizer.apply_chat_template(turns[:index], tokenize=False, add_generation_prompt=True))
            through = tokenizer.apply_chat_template(turns[: index + 1], tokenize=False)
            assert text.startswith(through), "this reference needs templates that keep earlier turns"
            # The line break after the last special token is no part of the turn.
            weights[start : len(through.rstrip())] = [1.0] * (len(through.rstrip()) - start)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = encoding["offset_mapping"]
    loss = [max(weights[start:end], default=0.0) for start, end in spans]
    return Sample(encoding["input_ids"], [0.0, *loss[1:]], Source("slow", 1))


@pytest.fixture(scope="session")
def real_conversations() -> list[tuple[Message, ...]]:
    """Conversations of the shared files, every kind of them; the test is skipped where they are not."""
    if not (SHARED / "gsm8k").is_dir() or not (SHARED / "formats").is_dir():
        pytest.skip("the shared data is not here")
    lines = (SHARED / "gsm8k" / "test.jsonl").read_text().splitlines()[:150]
    solved = [json.loads(line) for line in lines]
    single = [(Message("user", row["question"]), Message("assistant", row["answer"])) for row in solved]
    double = [first + second for first, second in zip(single[::2], single[1::2], strict=False)]
    alpaca = json.loads((SHARED / "formats" / "alpaca_en_demo.json").read_text())[:100]
    alpaca += json.loads((SHARED / "formats" / "identity.json").read_text())[:40]
    instructed = [
        (Message("user", f"{row['instruction']}\n{row['input']}"), Message("assistant", row["output"]))
        for row in alpaca
    ]
    roles: dict[str, Any] = {"human": "user", "gpt": "assistant"}
    chats = json.loads((SHARED / "formats" / "glaive_toolcall_en_demo.json").read_text())
    spoken = [
        tuple(Message(roles[turn["from"]], turn["value"]) for turn in row["conversations"])
        for row in chats
        if {turn["from"] for turn in row["conversations"]} <= set(roles)
    ][:100]
    return single + double + instructed + spoken
