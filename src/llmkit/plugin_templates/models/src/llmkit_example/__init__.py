"""A random Llama of two layers with a tokenizer of bytes, made here on first use."""

from pydantic import Field

from llmkit.config.section import Section


class Config(Section):
    """Its size."""

    hidden_size: int = Field(64, ge=8, multiple_of=8)
    """Width of the model."""


def build(config: Config) -> str:
    """Directory of the model in the Hugging Face layout; made when it is not there."""
    from llmkit.cache import cached_directory
    from llmkit_example.making import make

    return str(
        cached_directory(f"example_name-{config.hidden_size}", lambda directory: make(directory, config.hidden_size))
    )
