"""Asks for an answer, then asks once more whether it is right."""

from typing import TYPE_CHECKING

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.codec import TextCodec
    from llmkit.engines.inference.contract import InferenceEngine
    from llmkit.types import Record, Rollout, SamplingParams


class Config(Section):
    """What is said between the two answers."""

    follow_up: str = "Check your answer and state it again."
    """The user's second message."""


def build(config: Config) -> "TwoTurns":
    """Make the workflow."""
    return TwoTurns(config)


class TwoTurns:
    """Two turns in one conversation; both answers are trained."""

    def __init__(self, config: Config) -> None:
        self._config = config

    async def run(
        self,
        record: "Record",
        engine: "InferenceEngine",
        codec: "TextCodec",
        sampling: "SamplingParams",
        group_id: int,
    ) -> "Rollout":
        """Sample both answers; each is kept token by token, as the engine drew it."""
        from llmkit_example.conversation import Conversation

        conversation = Conversation(record, codec)
        await conversation.answer(engine, sampling)
        conversation.ask(self._config.follow_up)
        await conversation.answer(engine, sampling)
        return conversation.rollout(group_id)
