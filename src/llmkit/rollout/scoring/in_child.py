"""Rewards in a child process."""

import asyncio
from collections.abc import Callable

from llmkit import plugins
from llmkit.config.sending import unpacked
from llmkit.rollout.score import score
from llmkit.types import Rollout


def open_rewards(parts: list[tuple[str, str, bytes]]) -> Callable[[str, Rollout], float]:
    """What scores a rollout with the reward of a name.

    Args:
        parts: see `packed_parts`.
    Raises:
        LLMKitError: a reward cannot be built.
    """
    rewards = {
        name: plugins.load("rewards", plugin).build(unpacked(config, "rewards", plugin))
        for name, plugin, config in parts
    }

    # A loop for each rollout would cost more than most rewards do.
    loop = asyncio.Runner()

    async def score_alone(name: str, rollout: Rollout) -> float:
        try:
            return await score(rewards[name], rollout, name)
        finally:
            # What a reward left running must not run on into the next one.
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    def score_one(name: str, rollout: Rollout) -> float:
        return loop.run(score_alone(name, rollout))

    return score_one
