"""What every inference engine promises: token ids in, token ids with log-probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llmkit.types import Completion, SamplingParams

if TYPE_CHECKING:
    from llmkit.config.schema import DeviceConfig, ModelConfig
    from llmkit.models.policy import Policy


@dataclass(frozen=True)
class EngineContext:
    """What an engine may need to start.

    Attributes:
        model: the model to run.
        device: where and in which precision, for an engine in this process.
        policy: the model in training, for an engine that runs in this process and shares its parameters; None when
            there is no trainer.
    """

    model: "ModelConfig"
    device: "DeviceConfig"
    policy: "Policy | None" = None


class InferenceEngine(Protocol):
    """Samples completions. Everything is asynchronous; cancelling the awaiting task frees what it held."""

    @property
    def version(self) -> int:
        """Version of the weights that the next token is drawn with."""
        ...

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        """Sample one completion.

        Raises:
            EngineError: the prompt leaves no room in the context, or the engine failed or is closed.
        """
        ...

    async def pause(self) -> None:
        """End running requests with `stop_reason="cancelled"` and hold new ones until `resume`."""
        ...

    async def resume(self) -> None:
        """Go on after `pause`."""
        ...

    async def load_weights(self, version: int) -> None:
        """Take the policy's current weights at a step boundary; tokens drawn from now on carry `version`."""
        ...

    async def close(self) -> None:
        """End running requests and free everything. Closing twice is allowed."""
        ...
