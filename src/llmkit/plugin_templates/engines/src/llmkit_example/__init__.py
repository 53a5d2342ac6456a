"""Draws tokens from the prompt, each as likely as it is frequent there: a model of no weights."""

from typing import TYPE_CHECKING

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.engines.inference.contract import EngineContext, InferenceEngine


class Config(Section):
    """How it draws."""

    context_length: int = Field(4096, ge=2)
    """Most tokens of prompt and completion together."""


def build(config: Config, context: "EngineContext") -> "InferenceEngine":
    """Start the engine; one that runs a model finds it in `context`."""
    from llmkit_example.engine import Engine

    return Engine(config.context_length)
