"""The tokens of a rollout with their text, as far as the model's tokenizer is here."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmkit.config.schema import ModelConfig
from llmkit.data.codec import TextCodec
from llmkit.data.opening import open_codec
from llmkit.errors import LLMKitError
from llmkit.terminal import warn


@dataclass(frozen=True, slots=True)
class Token:
    """One token after the prompt.

    Attributes:
        piece: the text that it adds.
        logprob: nats; None where it was given, not sampled, or nobody asked for it.
        version: of the weights that drew it; None where it was given.
    """

    id: int
    piece: str
    logprob: float | None
    version: int | None

    @property
    def is_sampled(self) -> bool:
        """Whether it was drawn, not given."""
        return self.version is not None

    @property
    def probability(self) -> float | None:
        """Of having been drawn."""
        return None if self.logprob is None else math.exp(min(0.0, self.logprob))


def tokens_of(line: dict[str, Any], codec: TextCodec | None) -> list[Token] | None:
    """The tokens of a completion; None without a tokenizer, or of a line that has none."""
    ids: Sequence[int] | None = line.get("completion_ids")
    if codec is None or ids is None:
        return None
    logprobs = line["logprobs"] or [None] * len(ids)
    columns = (ids, codec.pieces(ids), logprobs, line["loss_mask"], line["versions"])
    return [
        Token(token_id, piece, logprob if mask else None, version if mask else None)
        for token_id, piece, logprob, mask, version in zip(*columns, strict=True)
    ]


def find_codec(path: Path, model: str | None) -> TextCodec | None:
    """The tokenizer of the model that made a file's rollouts; None, with a warning, when it is not to be had.

    Args:
        path: a file of rollouts; the run's settings lie beside it, or one directory up.
        model: whose tokenizer to take instead.
    """
    try:
        config = ModelConfig(path=model) if model is not None else model_of(path)
        if config is not None:
            return open_codec(config)
        warn(f"{path}: no settings of a run beside it, so its tokens cannot be told apart; name the model with --model")
    except LLMKitError as error:
        warn(f"tokens are not told apart: {error}. Another tokenizer: --model DIR")
    return None


def model_of(path: Path) -> ModelConfig | None:
    """The model that a file's rollouts are of, as the settings beside it say; None when there are none."""
    for directory in (path.absolute().parent, path.absolute().parent.parent):
        header, config = directory / "header.json", directory / "config.yaml"
        if header.is_file():
            return ModelConfig.model_validate(json.loads(header.read_text(encoding="utf-8"))["config"]["model"])
        if config.is_file():
            return ModelConfig.model_validate(yaml.safe_load(config.read_text(encoding="utf-8"))["model"])
    return None
