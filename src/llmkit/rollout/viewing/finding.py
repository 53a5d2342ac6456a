"""Which rollouts of some files are looked at, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llmkit.rollout.lines import read_line, read_lines

Order = Literal["file", "group", "reward", "-reward", "length", "-length", "logprob", "-logprob"]
ORDERS: tuple[Order, ...] = ("file", "group", "reward", "-reward", "length", "-length", "logprob", "-logprob")


@dataclass(frozen=True)
class Wanted:
    """What is looked for; None and empty ask for nothing.

    Attributes:
        group: its number, as `group_id` has it.
        text: part of prompt or completion, in any case.
    """

    group: int | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    stop_reason: str | None = None
    text: str = ""

    def fits(self, line: dict[str, Any]) -> bool:
        """Whether a rollout is one of them; one without a reward has none that is within limits."""
        reward = line["reward"]
        if self.min_reward is not None and (reward is None or reward < self.min_reward):
            return False
        if self.max_reward is not None and (reward is None or reward > self.max_reward):
            return False
        if self.group is not None and line["group_id"] != self.group:
            return False
        if self.stop_reason is not None and line.get("stop_reason") != self.stop_reason:
            return False
        return not self.text or self.text.lower() in f"{line['prompt']}\n{line['completion']}".lower()


class Spot(NamedTuple):
    """Where a rollout is, and what it is ordered by."""

    path: Path
    place: tuple[int, int]
    group_id: int
    member: int
    reward: float
    length: int
    logprob: float

    def read(self) -> dict[str, Any]:
        """The rollout's line."""
        return read_line(self.path, self.place)


@dataclass(frozen=True)
class Found:
    """Rollouts that were asked for.

    Attributes:
        spots: in order.
        num_rollouts: in the files.
        num_damaged: lines that are no whole rollouts.
    """

    spots: list[Spot]
    num_rollouts: int
    num_damaged: int


def find(paths: Sequence[Path], wanted: Wanted, order: Order) -> Found:
    """The rollouts to look at; their texts stay in the files.

    A minus before the order puts the highest first; rollouts without a reward come last.

    Raises:
        DataError: a file cannot be read.
    """
    spots: list[Spot] = []
    num_rollouts = num_damaged = 0
    for path in paths:
        for line in read_lines(path):
            if line.values is None:
                num_damaged += 1
                continue
            num_rollouts += 1
            if wanted.fits(line.values):
                spots.append(_spot(path, (line.start, line.end), line.values, last=order.startswith("-")))
    name = order.removeprefix("-")
    if name == "group":
        spots.sort(key=lambda spot: (spot.path, spot.group_id, spot.member))
    elif name != "file":
        spots.sort(key=lambda spot: getattr(spot, name), reverse=order.startswith("-"))
    return Found(spots, num_rollouts, num_damaged)


def mean_logprob(line: dict[str, Any]) -> float | None:
    """Of the sampled tokens; None of a line that does not have them."""
    if not line.get("logprobs"):
        return None
    pairs = zip(line["logprobs"], line["loss_mask"], strict=True)
    known = [logprob for logprob, mask in pairs if mask and logprob is not None]
    return sum(known) / len(known) if known else None


def _spot(path: Path, place: tuple[int, int], line: dict[str, Any], *, last: bool) -> Spot:
    missing = float("-inf") if last else float("inf")
    logprob = mean_logprob(line)
    return Spot(
        path,
        place,
        line["group_id"],
        line.get("member", 0),
        missing if line["reward"] is None else line["reward"],
        line.get("completion_length", 0),
        missing if logprob is None else logprob,
    )
