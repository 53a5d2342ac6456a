"""One question, one answer."""

from typing import TYPE_CHECKING

from llmkit.config.section import Section
from llmkit.data.turns import prompt_messages
from llmkit.types import Record, Rollout, SamplingParams

if TYPE_CHECKING:
    from llmkit.data.codec import TextCodec
    from llmkit.engines.inference.contract import InferenceEngine


class Config(Section):
    """Nothing to choose."""


def build(config: Config) -> "SingleTurn":
    """Make the workflow."""
    return SingleTurn()


class SingleTurn:
    """Prompts the engine once with the record's messages before its answer."""

    async def run(
        self, record: Record, engine: "InferenceEngine", codec: "TextCodec", sampling: SamplingParams, group_id: int
    ) -> Rollout:
        """Sample one completion; what was sampled is kept token by token."""
        prompt_ids = codec.prompt_ids(prompt_messages(record), record.source, record.tools)
        completion = await engine.generate(prompt_ids, sampling)
        count = len(prompt_ids)
        return Rollout(
            token_ids=[*prompt_ids, *completion.token_ids],
            loss_mask=[0] * count + [1] * len(completion.token_ids),
            logprobs=[0.0] * count + completion.logprobs,
            versions=[-1] * count + completion.versions,
            stop_reason=completion.stop_reason,
            record=record,
            group_id=group_id,
            prompt=codec.decode(prompt_ids),
            completion=codec.decode(completion.token_ids, skip_special_tokens=True),
        )
