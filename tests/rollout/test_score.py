import asyncio
from fractions import Fraction

import numpy as np
import pytest
import torch

from llmkit.errors import RewardError
from llmkit.rollout.score import score
from llmkit.types import Record, Rollout, Source

ROLLOUT = Rollout([], [], [], [], "stop", Record((), Source("train.jsonl", 17)), 0, "", "I think that it is 72.")


def scored(reward) -> float:
    return asyncio.run(score(reward, ROLLOUT))


@pytest.mark.parametrize("value", [1, 1.0, True, Fraction(1), np.float32(1), torch.tensor(1.0)])
def test_any_kind_of_number_will_do(value: object):
    result = scored(lambda rollout: value)
    assert result == 1.0
    assert type(result) is float


def test_an_async_reward_is_awaited():
    async def length(rollout: Rollout) -> float:
        await asyncio.sleep(0)
        return len(rollout.completion)

    assert scored(length) == 22.0


@pytest.mark.parametrize("value", [None, "1.0", float("nan"), float("inf"), [1.0], torch.tensor([1.0, 2.0])])
def test_what_is_no_finite_number_is_an_error(value: object):
    with pytest.raises(RewardError, match=r"^train\.jsonl:17: the reward '<lambda>' returned .* not a finite number"):
        scored(lambda rollout: value)


class Broken:
    def __call__(self, rollout: Rollout) -> float:
        raise KeyError("solution")


def test_a_reward_that_raises_is_named_with_row_and_completion():
    with pytest.raises(RewardError) as caught:
        scored(Broken())
    assert str(caught.value) == (
        "train.jsonl:17: the reward 'Broken' raised KeyError: 'solution', for the completion 'I think that it is 72.'"
    )
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_async_reward_that_raises_is_named():
    async def broken(rollout: Rollout) -> float:
        raise ValueError("no")

    with pytest.raises(RewardError, match="the reward 'broken' raised ValueError: no"):
        scored(broken)


def test_a_reward_error_stays_as_it_is():
    def careful(rollout: Rollout) -> float:
        raise RewardError("x:1: no reference answer")

    with pytest.raises(RewardError, match=r"^x:1: no reference answer$"):
        scored(careful)


def test_cancelling_is_no_error_of_the_reward():
    async def cancelled(rollout: Rollout) -> float:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        scored(cancelled)
