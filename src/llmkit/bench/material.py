"""What the contenders work on: the same rows in a file, and the same tokenizer in a directory."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.bench.chats import ACCENTS, chats
from llmkit.errors import DataError
from llmkit.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = 16_384
TRAINING_ROWS = 5000
"""Rows that the tokenizer learns from; more make it slower to train and hardly different."""
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' -%}
{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- message.content + '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
"""ChatML, with the markers that tell the tokenizer's own masks where answers are."""


@dataclass(frozen=True)
class Material:
    """Files that every contender reads.

    Attributes:
        rows: JSON Lines with `messages`.
        num_rows: how many.
        tokenizer: directory of a tokenizer whose template marks the answers.
        about: what it is, for the settings of a result.
    """

    rows: Path
    num_rows: int
    tokenizer: Path
    about: dict[str, Any]


def make_material(
    path: Path | None, model: str | None, num_rows: int, directory: Path, accents: float = ACCENTS
) -> Material:
    """Write rows and tokenizer into `directory`.

    Args:
        path: data in any format that llmkit reads; None makes chats up.
        model: whose tokenizer to take; None trains one on the rows.
        num_rows: most rows.
        directory: an empty one.
        accents: share of made-up words that ASCII cannot write.
    Raises:
        DataError: the data cannot be read, or holds more than text.
        ModelError: the tokenizer cannot be loaded.
    """
    from llmkit.data.chat.chat_template import ChatTemplate

    rows = list(chats(num_rows, accents=accents) if path is None else _rows_of(path, num_rows))
    file = directory / "rows.jsonl"
    write_rows(file, rows)
    tokenizer = _load_tokenizer(model) if model else _trained_tokenizer(rows)
    # A template without markers gives the tokenizer's own masks nothing to go by.
    own_template = tokenizer.chat_template
    marked = isinstance(own_template, str) and ChatTemplate(tokenizer).has_generation_markers
    if not marked:
        tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(directory / "tokenizer")
    about = {
        "data": "made-up chats" if path is None else str(path),
        "ascii_share": sum(_is_ascii(row) for row in rows) / max(1, len(rows)),
        "tokenizer": model or f"byte-level BPE trained on the rows, {len(tokenizer)} tokens",
        "template": "the tokenizer's own" if marked and model else "ChatML with generation markers",
    }
    return Material(file, len(rows), directory / "tokenizer", about)


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def repeat_rows(material: Material, file: Path, *, num_rows: int | None = None, num_bytes: int | None = None) -> int:
    """Write the rows again and again, up to a number of rows or bytes.

    Returns: the number of rows.
    """
    written = count = 0
    with material.rows.open("rb") as lines, file.open("wb") as target:
        for line in islice(cycle(lines), num_rows):
            if num_bytes is not None and written >= num_bytes:
                break
            written += target.write(line)
            count += 1
    return count


def _rows_of(path: Path, num_rows: int) -> Iterator[dict[str, Any]]:
    """The first rows of the user's data, as messages."""
    from llmkit import plugins
    from llmkit.data.contract import records

    dataset_plugin, auto = plugins.load("datasets", "files"), plugins.load("formatters", "auto")
    dataset = dataset_plugin.build(dataset_plugin.Config(path=str(path), limit=num_rows))
    for record in records(dataset, auto.build(auto.Config())):
        yield {"messages": [_text_message(message, str(record.source)) for message in record.messages]}


def _is_ascii(row: Mapping[str, Any]) -> bool:
    """Whether the row's text is all ASCII, which is quicker to tokenize than other text."""
    return all(message["content"].isascii() for message in row["messages"])


def _text_message(message: Message, place: str) -> dict[str, str]:
    """A message that every contender reads alike."""
    if message.tool_calls or message.media or message.reasoning or message.weight is not None:
        raise DataError(
            f"{place}: a message with more than a role and text (tool calls, media, reasoning, weights); contenders "
            "differ in what they make of those, so `llmkit bench data` measures rows without them"
        )
    return {"role": message.role, "content": message.text}


def _load_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    from llmkit.config.schema import ModelConfig
    from llmkit.models.loading import load_tokenizer

    # The tokenizer alone: a model's weights have nothing to do here.
    config = ModelConfig(path=model) if model.startswith("builtin:") else ModelConfig(tokenizer=model)
    return load_tokenizer(config)


def _trained_tokenizer(rows: list[dict[str, Any]]) -> "PreTrainedTokenizerBase":
    """A tokenizer made for these rows, from the cache if they have been met before."""
    from transformers import AutoTokenizer

    from llmkit.cache import cached_directory, fingerprint

    texts = [message["content"] for row in rows[:TRAINING_ROWS] for message in row["messages"]]
    digest = hashlib.sha256("\n".join(texts).encode("utf-8", "backslashreplace")).hexdigest()[:12]
    name = f"bench-bpe-{fingerprint([Path(__file__)])}-{digest}"
    return AutoTokenizer.from_pretrained(cached_directory(name, lambda target: _train_tokenizer(texts, target)))


def _train_tokenizer(texts: list[str], directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment] - no setter
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(directory)
