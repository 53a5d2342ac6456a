"""Several rewards at once: their weighted sum, each standardized within its group if asked for."""

from collections import Counter
from typing import Annotated, Self

from pydantic import Field, model_validator

from llmkit.config.section import PluginKind, PluginSection, Section
from llmkit.rollout.score import score
from llmkit.rollout.scoring.parts import Part, Parts
from llmkit.types import Rollout


class Summand(Section):
    """One of the rewards."""

    reward: Annotated[PluginSection, PluginKind("rewards")]
    """The reward."""
    weight: float = Field(1.0, allow_inf_nan=False)
    """What it is multiplied by; less than 0 makes a penalty of it."""
    label: str | None = Field(None, pattern=r"^\w+$")
    """Name of its values in rollouts and metrics; unset is the reward's own."""


class Config(Section):
    """Which rewards, with which weights. Metrics have the mean of each, `reward_NAME_mean`."""

    rewards: tuple[Summand, ...] = Field(min_length=1)
    """The rewards."""
    normalize: bool = False
    """Standardize each reward within its group before they are added (GDPO, arXiv:2601.05242), so that one of wide
    range does not drown the others; goes with `algorithm.advantage_scale=batch`."""

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        for label, count in Counter(map(_label, self.rewards)).items():
            if count > 1:
                raise ValueError(f"{count} rewards are named '{label}'; give each a `label` of its own")
        if any(one.reward.name == "sum" for one in self.rewards):
            raise ValueError("a sum within a sum: name its rewards here, with their weights multiplied")
        return self


def parts(config: Config) -> Parts:
    """What it is made of; see `Combination`."""
    found = [Part(_label(one), one.reward.name, one.reward, one.weight) for one in config.rewards]
    return Parts(found, config.normalize)


def build(config: Config) -> "WeightedSum":
    """Make the rewards, all in this process: for code that scores a rollout by itself."""
    return WeightedSum(parts(config))


class WeightedSum:
    """The weighted sum of one rollout's rewards; there is no group, so nothing is standardized."""

    def __init__(self, parts: Parts) -> None:
        self._rewards = [(part, part.build()) for part in parts.rewards]

    async def __call__(self, rollout: Rollout) -> float:
        """The sum.

        Raises:
            RewardError: one of the rewards fails.
        """
        return sum([part.weight * await score(reward, rollout, part.name) for part, reward in self._rewards])


def _label(summand: Summand) -> str:
    return summand.label or summand.reward.name.rpartition(":")[2].replace("-", "_")
