"""What every reward promises: a finite number for a finished rollout, the same one each time."""

import asyncio
import copy
import math
from collections.abc import Sequence
from typing import ClassVar

from llmkit.rollout.contract import Reward
from llmkit.rollout.score import score
from llmkit.testing.front import FrontContract
from llmkit.testing.samples import rollout
from llmkit.types import Rollout


class RewardContract(FrontContract):
    """Subclass it, set `name`, and say which completions are better than which.

    Attributes:
        rollouts: finished rollouts to score.
        better: pairs of rollouts, of which the first must earn more than the second.
    """

    kind = "rewards"
    rollouts: ClassVar[Sequence[Rollout]] = (
        rollout("3 + 4 = 7\n#### 7"),
        rollout("#### 8"),
        rollout("no idea"),
        rollout(""),
    )
    better: ClassVar[Sequence[tuple[Rollout, Rollout]]] = ()

    def build(self) -> Reward:
        """The reward to test."""
        return self.plugin().build(self.config())

    def test_rewards_are_finite_numbers(self) -> None:
        reward = self.build()
        for one in self.rollouts:
            assert math.isfinite(_score(reward, one))

    def test_the_same_rollout_earns_the_same(self) -> None:
        first, second = self.build(), self.build()
        for one in self.rollouts:
            assert _score(first, one) == _score(first, one) == _score(second, one)

    def test_scoring_leaves_the_rollout_as_it_is(self) -> None:
        reward = self.build()
        for one in self.rollouts:
            before = copy.deepcopy(one)
            _score(reward, one)
            assert one == before

    def test_what_it_knows_quickly_is_what_it_says(self) -> None:
        quick = getattr(self.plugin(), "quick", None)
        if quick is None:
            return
        reward, config = self.build(), self.config()
        for one in self.rollouts:
            assert quick(config, one) in (None, _score(reward, one))

    def test_better_completions_earn_more(self) -> None:
        reward = self.build()
        for better, worse in self.better:
            assert _score(reward, better) > _score(reward, worse), f"{better.completion!r} over {worse.completion!r}"


def _score(reward: Reward, one: Rollout) -> float:
    return asyncio.run(score(reward, one))
