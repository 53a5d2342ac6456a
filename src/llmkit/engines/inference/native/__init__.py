"""In this process, over the trainer's own parameters: no copy, no weight transfer."""

from pydantic import Field

from llmkit.config.section import Section
from llmkit.engines.inference.contract import EngineContext, InferenceEngine


class Config(Section):
    """Batched generation with any Hugging Face causal language model."""

    max_batch_size: int = Field(256, ge=1)
    """Most completions drawn side by side; more wait their turn."""


def build(config: Config, context: EngineContext) -> InferenceEngine:
    """Start the engine on the policy in training, or load the model when there is none."""
    from llmkit.engines.inference.native.engine import NativeEngine
    from llmkit.models.policy import load_policy

    policy = context.policy if context.policy is not None else load_policy(context.model, context.device)
    return NativeEngine(policy, max_batch_size=config.max_batch_size)
