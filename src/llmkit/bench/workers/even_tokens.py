"""The share of a completion's tokens with even numbers: a reward that costs nothing and differs between completions."""

from llmkit.config.section import Section
from llmkit.types import Rollout

IN_PROCESS = True


class Config(Section):
    """Nothing to choose."""


def build(config: Config) -> "EvenTokens":
    """Make the reward."""
    return EvenTokens()


class EvenTokens:
    """The reward: a pure function of the completion's tokens."""

    def __call__(self, rollout: Rollout) -> float:
        """From 0 to 1."""
        sampled = [token for token, mask in zip(rollout.token_ids, rollout.loss_mask, strict=True) if mask]
        return sum(token % 2 == 0 for token in sampled) / max(1, len(sampled))
