"""What trainers train on in a benchmark: a model of random weights, its tokenizer, and rows of known lengths."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.bench.material import CHATML, SPECIAL_TOKENS, write_rows
from llmkit.bench.worker import PLUGINS

WORDS = 4000
"""Words that rows are made of: each is one token, so that lengths are known. A larger vocabulary has tokens that no row
uses."""
ROLES = ("system", "user", "assistant")
ROWS = 2048


@dataclass(frozen=True)
class Shape:
    """Size of a Qwen3 model.

    Attributes:
        hidden: width of the residual stream; heads are 64 wide, two query heads to a key head.
        layers: how many.
        vocabulary: tokens that it has embeddings for; the head is tied to them.
    """

    hidden: int
    layers: int
    vocabulary: int


def write_model(directory: Path, shape: Shape) -> None:
    """A checkpoint in Hugging Face layout: seeded random weights in float32, and a tokenizer of made-up words."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = write_tokenizer(directory)
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 64,
        num_key_value_heads=max(1, shape.hidden // 128),
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(directory)


def write_tokenizer(directory: Path) -> Any:
    """A tokenizer to which every word is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL_TOKENS, "\n", *ROLES, *(f"w{number}" for number in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    split = pre_tokenizers.Split(" ", "removed")
    newline = pre_tokenizers.Split("\n", "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([newline, split])  # type: ignore[assignment] - no setter
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)  # type: ignore[assignment] - joins with spaces
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )
    made.save_pretrained(directory)
    return made


def chats(rows: int, prompt: int, answer: int) -> Iterator[dict[str, Any]]:
    """Chats whose prompts and answers have log-normal lengths around the given numbers of tokens."""
    source = random.Random(0)
    for _ in range(rows):
        yield {"messages": [_message("user", source, prompt), _message("assistant", source, answer)]}


def pairs(rows: int, prompt: int, answer: int) -> Iterator[dict[str, Any]]:
    """A prompt each with a chosen and a rejected answer."""
    source = random.Random(0)
    for _ in range(rows):
        yield {
            "prompt": [_message("user", source, prompt)],
            "chosen": [_message("assistant", source, answer)],
            "rejected": [_message("assistant", source, answer)],
        }


def prompts(rows: int, length: int) -> Iterator[dict[str, Any]]:
    """Prompts of exactly `length` tokens, the seven of the chat template included."""
    source = random.Random(0)
    for _ in range(rows):
        yield {"prompt": [{"role": "user", "content": _text(source, length - 7)}]}


def answers(count: int, length: int) -> list[list[int]]:
    """Token ids of answers between 0.4 and 1.6 times `length` long; none of them ends the turn."""
    source = random.Random(1)
    first = len(SPECIAL_TOKENS) + 1 + len(ROLES)
    return [
        [source.randrange(first, first + WORDS) for _ in range(round(length * source.uniform(0.4, 1.6)))]
        for _ in range(count)
    ]


def write(path: Path, rows: Iterator[dict[str, Any]]) -> str:
    """Write rows as JSON Lines; returns the file's name."""
    write_rows(path, rows)
    return str(path)


def write_plugins(directory: Path) -> None:
    """Give workers of the benchmark in `directory` its tracker and its reward, as a package that is all metadata."""
    package = directory / PLUGINS / "llmkit_bench-0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: llmkit-bench\nVersion: 0\n", encoding="utf-8")
    points = {
        "llmkit.trackers": "bench_steps = llmkit.bench.workers.training_steps",
        "llmkit.rewards": "bench_even = llmkit.bench.workers.even_tokens",
    }
    text = "".join(f"[{group}]\n{line}\n" for group, line in points.items())
    (package / "entry_points.txt").write_text(text, encoding="utf-8")


def _message(role: str, source: random.Random, length: int) -> dict[str, str]:
    drawn = round(source.lognormvariate(0, 0.5) * length)
    return {"role": role, "content": _text(source, max(4, min(drawn, 4 * length)))}


def _text(source: random.Random, length: int) -> str:
    return " ".join(f"w{source.randrange(WORDS)}" for _ in range(length))


def describe(shape: Shape) -> str:
    """`Qwen3 h256 L5 V4096`."""
    return f"Qwen3 h{shape.hidden} L{shape.layers} V{shape.vocabulary}"


def num_parameters(directory: Path) -> int:
    """Parameters of a checkpoint, from its headers."""
    from safetensors import safe_open

    with safe_open(directory / "model.safetensors", "pt") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118 - no mapping
