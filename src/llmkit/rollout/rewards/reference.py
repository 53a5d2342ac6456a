"""The reference answer that a rollout is compared with."""

from llmkit.errors import RewardError
from llmkit.types import Rollout


def reference_answer(rollout: Rollout, reward: str) -> str:
    """The record's answer.

    Args:
        rollout: what is scored.
        reward: name of the reward, for the error.
    Raises:
        RewardError: the record has none.
    """
    reference = rollout.record.answer
    if reference is None or not reference.strip():
        raise RewardError(
            f"{rollout.record.source}: no reference answer for the reward '{reward}'; give the row an 'answer', or "
            "name its column with --set formatter.answer_column=..."
        )
    return reference
