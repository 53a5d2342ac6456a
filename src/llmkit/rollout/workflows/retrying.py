"""Several tries at one question."""

import asyncio
from typing import TYPE_CHECKING

from llmkit.data.codec import TextCodec
from llmkit.engines.inference.contract import InferenceEngine
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.rollout.workflows.conversation import Conversation
from llmkit.rollout.workflows.turn_tokens import check_template
from llmkit.types import Message, Record, Rollout, SamplingParams

if TYPE_CHECKING:
    from llmkit.rollout.workflows.multi_turn import Config


class Retrying:
    """The workflow."""

    def __init__(self, config: "Config") -> None:
        self._config = config
        self._scorer = Scorer(config.verifier, config.scoring)
        self._opening = asyncio.Lock()
        self._is_open = False

    async def open(self, codec: TextCodec) -> None:
        """See `Workflow`."""
        async with self._opening:
            if not self._is_open:
                if self._config.max_turns > 1:
                    check_template(codec, with_tools=False)
                await self._scorer.start()
            self._is_open = True

    async def close(self) -> None:
        """See `Workflow`."""
        await self._scorer.close()

    async def run(
        self, record: Record, engine: InferenceEngine, codec: TextCodec, sampling: SamplingParams, group_id: int
    ) -> Rollout:
        """Sample answers until one is right, or tries or tokens are used up."""
        await self.open(codec)
        config = self._config
        conversation = Conversation(record, codec, sampling, tools=record.tools)
        while True:
            is_finished = await conversation.answer(engine, config.max_turn_tokens)
            num_turns = len(conversation.turns)
            rollout = conversation.rollout(group_id, config.discount ** (num_turns - 1))
            if not is_finished or num_turns == config.max_turns or await self._is_settled(rollout):
                return rollout
            if not conversation.give((Message("user", config.feedback),)):
                rollout.stop_reason = conversation.stop_reason
                return rollout

    async def _is_settled(self, rollout: Rollout) -> bool:
        """Whether the answer is right, or nobody can say."""
        await self._scorer.score([rollout])
        verdict, rollout.rewards = rollout.rewards, {}
        if rollout.reward_error is not None:
            return True
        return sum(verdict.values()) >= self._config.right_at
