"""The data set, formatter and encoder that a run of `llmkit train sft` would have."""

from dataclasses import dataclass
from typing import Any

from llmkit import plugins
from llmkit.config.schema import ModelConfig, SFTDataConfig
from llmkit.data.contract import choose_formatter
from llmkit.data.encoders import SampleEncoder
from llmkit.data.opening import open_codec


@dataclass(frozen=True)
class Opened:
    """Everything that makes samples of rows.

    Attributes:
        dataset: the rows; a stream where one was asked for.
        formatter: the one that fits them.
        encoder: records to samples.
        config: how.
    """

    dataset: Any
    formatter: Any
    encoder: SampleEncoder
    config: SFTDataConfig


def open_rows(settings: dict[str, Any], *, cache: bool, streaming: bool = False) -> Opened:
    """Open what the settings name.

    Args:
        settings: `rows` a file, `tokenizer` a directory, `max_length` in tokens.
        cache: keep tokenized rows, or use the ones that were kept.
        streaming: open the rows as a stream.
    """
    codec = open_codec(ModelConfig(tokenizer=settings["tokenizer"]))
    config = SFTDataConfig.model_validate({"max_length": settings["max_length"], "cache": cache})
    files, auto = plugins.load("datasets", "files"), plugins.load("formatters", "auto")
    dataset = files.build(files.Config(path=settings["rows"], **({"streaming": True} if streaming else {})))
    formatter = choose_formatter(auto.build(auto.Config()), dataset)
    return Opened(dataset, formatter, SampleEncoder(codec, config), config)
