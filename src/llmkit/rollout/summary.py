"""What the rollouts of a file have come to."""

import statistics
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmkit.rollout.estimators import attempts, majority, pass_at_k
from llmkit.rollout.lines import read_lines
from llmkit.rollout.rewards.final_answer import extract_answer
from llmkit.rollout.rewards.numbers import parse_number


@dataclass
class Values:
    """One reward over all rollouts, by group.

    Attributes:
        groups: of each group, how many rollouts have the reward, how many of them 1, and the sum.
        is_verdict: every value is 1 or 0: right or wrong.
    """

    total: float = 0.0
    squares: float = 0.0
    count: int = 0
    least: float = float("inf")
    most: float = float("-inf")
    is_verdict: bool = True
    groups: dict[int, tuple[int, int, float]] = field(default_factory=dict[int, tuple[int, int, float]])

    def add(self, group_id: int, value: float) -> None:
        """Count one."""
        self.total, self.squares, self.count = self.total + value, self.squares + value * value, self.count + 1
        self.least, self.most = min(self.least, value), max(self.most, value)
        self.is_verdict = self.is_verdict and value in (0.0, 1.0)
        samples, right, total = self.groups.get(group_id, (0, 0, 0.0))
        self.groups[group_id] = (samples + 1, right + (value == 1.0), total + value)

    def group_means(self) -> list[float]:
        """Mean value of each group."""
        return [total / samples for samples, _, total in self.groups.values()]

    def to_dict(self) -> dict[str, Any]:
        """Mean, deviation, limits, and pass@k where the reward tells right from wrong."""
        mean = self.total / self.count
        found: dict[str, Any] = {
            "mean": mean,
            "std": max(0.0, self.squares / self.count - mean * mean) ** 0.5,
            "min": self.least,
            "max": self.most,
        }
        return found | ({"pass_at_k": self.pass_at_k()} if self.is_verdict else {})

    def pass_at_k(self) -> dict[str, float]:
        """Mean over the groups that have k samples."""
        found: dict[str, float] = {}
        for k in attempts(max(samples for samples, _, _ in self.groups.values())):
            chances = [pass_at_k(samples, right, k) for samples, right, _ in self.groups.values() if samples >= k]
            found[str(k)] = statistics.fmean(chances)
        return found


@dataclass
class Summary:
    """Figures of all rollouts.

    Attributes:
        reward: the total; None when nothing was scored.
        rewards: each reward by name, where there are several.
        votes: answers and rewards of each group, for the majority; emptied when answers cannot be compared.
        lengths: of the completions, tokens.
    """

    reward: Values | None = None
    rewards: dict[str, Values] = field(default_factory=dict[str, Values])
    votes: dict[int, list[tuple[Hashable | None, float]]] | None = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list[int])
    group_sizes: dict[int, int] = field(default_factory=dict[int, int])
    num_truncated: int = 0

    def add(self, group_id: int, line: Mapping[str, Any]) -> None:
        """Count the rollout of a line."""
        self.lengths.append(line["completion_length"])
        self.group_sizes[group_id] = self.group_sizes.get(group_id, 0) + 1
        self.num_truncated += line["stop_reason"] == "length"
        reward = line["reward"]
        if reward is not None:
            self.reward = self.reward or Values()
            self.reward.add(group_id, reward)
        named: Mapping[str, float] = line.get("rewards") or {}
        for name, value in named.items() if len(named) > 1 else ():
            self.rewards.setdefault(name, Values()).add(group_id, value)
        self._vote(group_id, line)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        count = len(self.lengths)
        found: dict[str, Any] = {"num_prompts": len(self.group_sizes), "num_rollouts": count}
        if self.reward is not None:
            values = self.reward.to_dict()
            found |= {f"reward_{name}": value for name, value in values.items() if name != "pass_at_k"}
            found |= {"pass_at_k": values["pass_at_k"]} if "pass_at_k" in values else {}
            found |= {"maj_at_k": most} if (most := self._majority()) else {}
        if self.rewards:
            found["rewards"] = {name: values.to_dict() for name, values in self.rewards.items()}
        if count:
            found |= {
                "num_tokens": sum(self.lengths),
                "completion_length_mean": statistics.fmean(self.lengths),
                "completion_length_median": statistics.median(self.lengths),
                "completion_length_max": max(self.lengths),
                "truncated_fraction": self.num_truncated / count,
            }
        return found

    def _vote(self, group_id: int, line: Mapping[str, Any]) -> None:
        """Answers are compared where each row has a reference answer and the reward is a verdict on it."""
        if self.votes is None:
            return
        if line["answer"] is None or self.reward is None or not self.reward.is_verdict or line["reward"] is None:
            self.votes = None
            return
        self.votes.setdefault(group_id, []).append((comparable(line["completion"]), line["reward"]))

    def _majority(self) -> dict[str, float]:
        """The majority's reward over the groups of the usual size."""
        if not self.votes:
            return {}
        size = max(map(len, self.votes.values()))
        groups = [votes for votes in self.votes.values() if len(votes) == size]
        if size < 2:
            return {}
        return {str(size): statistics.fmean(majority(*zip(*votes, strict=True)) for votes in groups)}


def summarize(paths: Iterable[Path]) -> Summary:
    """The figures of rollouts files; damaged lines are passed over.

    Raises:
        DataError: a file cannot be read.
    """
    summary = Summary()
    groups: dict[tuple[Path, int], int] = {}
    for path in paths:
        for line in read_lines(path):
            if line.values is not None:
                group = groups.setdefault((path, line.values["group_id"]), len(groups))
                summary.add(group, line.values)
    return summary


def comparable(completion: str) -> Hashable | None:
    """The final answer of a completion, so that equal answers are equal; None when it has none."""
    answer = extract_answer(completion)
    if answer is None:
        return None
    number = parse_number(answer)
    return " ".join(answer.casefold().split()) if number is None else (number.value * number.scale, number.percent)
