"""What a trained reward model says: a classification head in this process, or one behind a URL."""

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from llmkit.config.schema import DeviceConfig
from llmkit.config.section import Secret, Section, all_defaults

if TYPE_CHECKING:
    from llmkit.rollout.rewards.reward_head import RewardHead
    from llmkit.rollout.rewards.reward_server import RewardServer

IN_PROCESS = True


class Config(Section):
    """Either `path` or `url`."""

    path: str | None = None
    """Directory or Hugging Face name of a sequence-classification model with one label."""
    chat_template: str | None = None
    """Template, by name or file, in place of the one of the model's tokenizer."""
    max_length: int = Field(4096, ge=16)
    """Tokens of a conversation; of a longer one the last ones are read."""
    batch_size: int = Field(8, ge=1)
    """Conversations in one forward pass."""
    device: DeviceConfig = all_defaults(DeviceConfig)
    url: str | None = Field(None, pattern=r"^https?://")
    """Address that takes `{"messages": [...], "model": ...}` and answers `{"reward": 0.5}`, or
    `{"data": [{"data": [...]}]}` as vLLM's `/pooling` does."""
    model: str | None = None
    """Name of the model for the server."""
    api_key: Secret | None = None
    """Sent as a bearer token."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Longest time for an answer of the server; a second try follows one that fails."""
    max_running: int = Field(16, ge=1)
    """Questions to the server at a time."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either `path`, of a model to load here, or `url`, of a server that has one")
        return self


def build(config: Config) -> "RewardHead | RewardServer":
    """Load the model, or make what asks the server.

    Raises:
        ModelError: the model cannot be loaded, or has not one label.
        PluginError: aiohttp is not installed.
    """
    if config.path is not None:
        from llmkit.rollout.rewards.reward_head import RewardHead

        return RewardHead(config)
    from llmkit.rollout.rewards.reward_server import RewardServer

    return RewardServer(config)
