"""A penalty from 0 to -1: the share of n-grams of tokens that are repetitions."""

from pydantic import Field

from llmkit.config.section import Section
from llmkit.types import Rollout

IN_PROCESS = True


class Config(Section):
    """What counts as a repetition."""

    ngram_size: int = Field(4, ge=1)
    """Tokens in a row that are compared."""


def build(config: Config) -> "Repetition":
    """Make the reward."""
    return Repetition(config)


class Repetition:
    """The reward: a pure function of the sampled tokens; an n-gram lies within one turn."""

    def __init__(self, config: Config) -> None:
        self._size = config.ngram_size

    def __call__(self, rollout: Rollout) -> float:
        """Minus the share of n-grams that were there before; 0 for a completion of fewer tokens than one has."""
        mask, tokens = rollout.loss_mask, rollout.token_ids
        # In `gaps`, the number of given tokens before each place: equal at both ends of what was sampled in one go.
        gaps = [0]
        for flag in mask:
            gaps.append(gaps[-1] + (not flag))
        starts = range(len(tokens) - self._size + 1)
        ngrams = [tuple(tokens[at : at + self._size]) for at in starts if gaps[at] == gaps[at + self._size]]
        return len(set(ngrams)) / len(ngrams) - 1.0 if ngrams else 0.0
