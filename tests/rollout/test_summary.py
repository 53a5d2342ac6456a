"""The figures of a file of rollouts, by hand."""

from pathlib import Path

import pytest

from llmkit.rollout.lines import encode
from llmkit.rollout.summary import Summary, comparable, summarize


def line(group: int, completion: str, reward: float | None, **more: object) -> dict[str, object]:
    return {
        "group_id": group, "prompt": "?", "completion": completion, "reward": reward, "answer": "7",
        "completion_length": len(completion), "stop_reason": "stop", **more,
    }  # fmt: skip


def test_figures_by_hand(tmp_path: Path):
    lines = [
        line(0, "#### 7", 1.0), line(0, "#### 7.0", 1.0), line(0, "#### 9", 0.0),
        line(1, "#### 8", 0.0), line(1, "#### 8", 0.0), line(1, "#### 7", 1.0, stop_reason="length"),
    ]  # fmt: skip
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"".join(map(encode, lines)) + b'{"torn')
    found = summarize([path]).to_dict()
    assert (found["num_prompts"], found["num_rollouts"]) == (2, 6)
    assert found["reward_mean"] == 0.5
    # Two of three right: a pair misses both only never; one of three right: two of three pairs hold it.
    assert found["pass_at_k"] == {"1": 0.5, "2": pytest.approx((1 + 2 / 3) / 2), "3": 1.0}
    assert found["maj_at_k"] == {"3": 0.5}  # 7 and 7.0 are one answer, and win; so does 8
    assert found["truncated_fraction"] == pytest.approx(1 / 6)


def test_groups_of_several_files_are_not_one(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(encode(line(0, "#### 7", 1.0)))
    assert summarize([tmp_path / "a", tmp_path / "b"]).to_dict()["num_prompts"] == 2


def test_a_reward_that_is_no_verdict_has_no_pass_at_k():
    summary = Summary()
    for number, reward in enumerate((0.25, 1.0)):
        summary.add(0, line(0, str(number), reward, rewards={"format": 1.0, "length": reward}))
    found = summary.to_dict()
    assert "pass_at_k" not in found
    assert "maj_at_k" not in found
    assert found["rewards"]["format"]["pass_at_k"] == {"1": 1.0, "2": 1.0}
    assert found["rewards"]["length"] == {"mean": 0.625, "std": 0.375, "min": 0.25, "max": 1.0}


def test_rollouts_without_rewards_have_lengths():
    summary = Summary()
    summary.add(0, line(0, "abc", None))
    found = summary.to_dict()
    assert found["completion_length_mean"] == 3
    assert not [name for name in found if name.startswith("reward")]


def test_of_no_rollouts_there_is_little_to_tell():
    assert Summary().to_dict() == {"num_prompts": 0, "num_rollouts": 0}


@pytest.mark.parametrize("other", ["#### 7.0", "\\boxed{7}", "The answer is 7."])
def test_equal_answers_are_equal_however_they_are_written(other: str):
    assert comparable("#### 7") == comparable(other) is not None
