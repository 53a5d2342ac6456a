"""What a training run reads: tokenizer, training rows, held-out rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from llmkit import plugins
from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Dataset, Formatter
from llmkit.data.loader import Loader
from llmkit.errors import ModelError
from llmkit.models.loading import context_length, load_tokenizer
from llmkit.train.console import note, warn

T = TypeVar("T")


@dataclass
class Inputs:
    """Tokenizer and data of a run.

    Attributes:
        tokenizer: the model's own, or the one that was named.
        codec: the tokenizer with its chat template.
        dataset: rows to train on.
        held_out: rows to measure on; None when the run names none.
        formatter: reads rows of both.
        max_length: most tokens of a sample: what the run allows, within the model's context.
    """

    tokenizer: PreTrainedTokenizerBase
    codec: TextCodec
    dataset: Dataset
    held_out: Dataset | None
    formatter: Formatter
    max_length: int

    @property
    def num_rows(self) -> int:
        """Rows to train on."""
        return len(self.dataset)

    def read_held_out(self, load: Callable[[Dataset], Loader[T]], limit: int) -> list[T]:
        """The first `limit` held-out rows as `load` encodes them; none when the run names no held-out rows.

        Raises:
            DataError: a row cannot be used.
        """
        if self.held_out is None:
            return []
        loader = load(self.held_out)
        items = loader.read_all(limit)
        if loader.counts.dropped:
            warn(f"{loader.counts.dropped} of {loader.counts.rows} held-out rows are too long and are left out")
        return items


def open_inputs(run: SFTRun | DPORun | GRPORun) -> Inputs:
    """Open tokenizer and data, before the model: their faults show at once.

    Raises:
        ModelError: there is no tokenizer, or it has no chat template.
        DataError: a data set cannot be read.
    """
    dataset = build("datasets", run.dataset)
    held_out = build("datasets", run.eval_dataset) if run.eval_dataset is not None else None
    formatter = build("formatters", run.formatter)
    tokenizer = load_tokenizer(run.model)
    if (template := read_template(run.model.chat_template)) is not None:
        # Checkpoints must be served with the template that they were trained with.
        tokenizer.chat_template = template
    codec = TextCodec(tokenizer)
    context = context_length(run.model)
    if context < run.data.max_length:
        note(f"The model's context of {context} tokens is less than data.max_length={run.data.max_length}: it counts.")
    return Inputs(tokenizer, codec, dataset, held_out, formatter, min(run.data.max_length, context))


def build(kind: str, section: Any) -> Any:
    """What the plugin that a section names makes of it."""
    return plugins.load(kind, section.name).build(section)


def read_template(path: str | None) -> str | None:
    """The text of a chat-template file."""
    if path is None:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"model.chat_template={path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"model.chat_template={path}: not UTF-8 text: {error}") from error
