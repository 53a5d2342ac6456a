"""Rollouts to training data: the best answers of each prompt, or pairs of a better and a worse one."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from llmkit.config.rollout import SelectConfig
from llmkit.disk import writing
from llmkit.errors import DataError
from llmkit.rollout.lines import read_line, read_lines
from llmkit.rollout.training_rows import as_demonstration, as_pair


class Candidate(NamedTuple):
    """A rollout that may be chosen.

    Attributes:
        member: its number in its group.
        text: a hash of the completion, the same for equal ones.
        path: the file that it is in.
        place: bytes of that file where its line begins and ends.
    """

    reward: float
    member: int
    text: int
    path: Path
    place: tuple[int, int]


@dataclass
class Groups:
    """All candidates by group, in the order of their groups, and what was left out.

    Attributes:
        num_truncated: left out, since they were cut at the limit.
        num_repeated: left out, since another one of the group says the same.
        num_unscored: left out, since they have no reward.
    """

    groups: dict[tuple[Path, int], list[Candidate]] = field(default_factory=dict)
    num_rollouts: int = 0
    num_truncated: int = 0
    num_repeated: int = 0
    num_unscored: int = 0


@dataclass
class Selection:
    """What was chosen, one row after another, and why groups have none.

    Attributes:
        chosen: candidates of each row: one, or the better and the worse one.
        num_groups: looked at.
        num_ties: groups in which others are rewarded like the best; the first of them is taken.
        num_equal: groups whose rollouts are all rewarded alike.
        num_without: groups of which nothing was chosen.
    """

    chosen: list[tuple[Candidate, ...]] = field(default_factory=list)
    num_groups: int = 0
    num_ties: int = 0
    num_equal: int = 0
    num_without: int = 0


def write_selected(config: SelectConfig, paths: Sequence[Path], directory: Path) -> dict[str, dict[str, Any]]:
    """Write `demonstrations.jsonl` and `pairs.jsonl`, as asked for; returns their figures.

    Raises:
        DataError: a rollout cannot be written as such a row.
        TrainingError: the disk is full.
    """
    found: dict[str, dict[str, Any]] = {}
    if config.keep is not None:
        found["demonstrations"] = write_demonstrations(config, paths, directory / "demonstrations.jsonl")
    if config.pairs is not None:
        found["pairs"] = write_pairs(config, paths, directory / "pairs.jsonl")
    return found


def write_demonstrations(config: SelectConfig, paths: Sequence[Path], output: Path) -> dict[str, Any]:
    """Rows to fine-tune on: what `config.keep` keeps of each group; returns the figures."""
    assert config.keep is not None
    groups = read_groups(paths, config)
    selection = keep(groups.groups.values(), config.keep, config.above)
    return _write(groups, selection, output, lambda lines: as_demonstration(lines[0], config.form))


def write_pairs(config: SelectConfig, paths: Sequence[Path], output: Path) -> dict[str, Any]:
    """Preference rows: the best and the worst of each group; returns the figures."""
    groups = read_groups(paths, config)
    selection = pair(groups.groups.values(), config.margin, config.above)
    return _write(groups, selection, output, lambda lines: as_pair(*lines))


def read_groups(paths: Sequence[Path], config: SelectConfig) -> Groups:
    """The candidates of rollouts files; their texts stay in the files.

    Raises:
        DataError: a file cannot be read, a line is damaged, or no rollout has a reward.
    """
    found = Groups()
    for path in paths:
        for line in read_lines(path):
            if line.values is None:
                raise DataError(f"{path}:{line.number}: no whole rollout. Finish the run with --resume, or cut it off")
            found.num_rollouts += 1
            values = line.values
            if values["reward"] is None:
                found.num_unscored += 1
            elif values.get("stop_reason") == "length" and not config.truncated:
                found.num_truncated += 1
            else:
                group = found.groups.setdefault((path, values["group_id"]), [])
                number = values.get("member", len(group))
                group.append(
                    Candidate(values["reward"], number, hash(values["completion"]), path, (line.start, line.end))
                )
    if found.num_rollouts and found.num_unscored == found.num_rollouts:
        raise DataError("No rollout has a reward to select by; make them with --reward NAME")
    # Rollouts are written as they come: what is chosen must not depend on which one was faster.
    order = {path: number for number, path in enumerate(paths)}
    found.groups = {key: found.groups[key] for key in sorted(found.groups, key=lambda key: (order[key[0]], key[1]))}
    for key, group in found.groups.items():
        found.groups[key] = list({one.text: one for one in sorted(group, key=_by_member, reverse=True)}.values())
        found.num_repeated += len(group) - len(found.groups[key])
    return found


def keep(groups: Iterable[Sequence[Candidate]], how: str, above: float | None = None) -> Selection:
    """Demonstrations: of each group the `best`, the `top-N` or `all`, as far as they have more reward than `above`.

    Of equal rewards the first member comes first.
    """
    found = Selection()
    for group in groups:
        ranked = sorted(group, key=lambda one: (-one.reward, one.member))
        _count(found, ranked)
        good = [one for one in ranked if above is None or one.reward > above]
        found.chosen += [(one,) for one in good[: num_kept(how)]]
        found.num_without += not good
    return found


def num_kept(how: str) -> int | None:
    """How many of a group `best`, `top-4` or `all` keeps; None is all of them."""
    return {"best": 1, "all": None}[how] if how in ("best", "all") else int(how.removeprefix("top-"))


def pair(groups: Iterable[Sequence[Candidate]], margin: float = 0.0, above: float | None = None) -> Selection:
    """Pairs: of each group the best and the worst, where the best has more reward than `above`, and more than
    `margin` more than the worst."""
    found = Selection()
    for group in groups:
        ranked = sorted(group, key=lambda one: (-one.reward, one.member))
        _count(found, ranked)
        best, worst = ranked[0], ranked[-1]
        if best.reward - worst.reward > margin and (above is None or best.reward > above):
            found.chosen.append((best, worst))
        else:
            found.num_without += 1
    return found


def _by_member(one: Candidate) -> int:
    return one.member


def _count(found: Selection, ranked: Sequence[Candidate]) -> None:
    found.num_groups += 1
    is_equal = ranked[0].reward == ranked[-1].reward
    found.num_equal += is_equal
    found.num_ties += not is_equal and ranked[0].reward == ranked[1].reward


def _write(groups: Groups, selection: Selection, output: Path, row: Any) -> dict[str, Any]:
    """Write the rows, whole or not at all."""
    partial = output.with_name(f".{output.name}.partial")
    with writing(output):
        try:
            with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
                for lines in _lines(selection.chosen):
                    file.write(json.dumps(row(lines), ensure_ascii=False) + "\n")
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    return {"path": str(output), "num_rows": len(selection.chosen), **_counts(groups), **_counts(selection)}


def _lines(chosen: Iterable[tuple[Candidate, ...]]) -> Iterator[list[dict[str, Any]]]:
    for candidates in chosen:
        yield [read_line(one.path, one.place) for one in candidates]


def _counts(of: Groups | Selection) -> dict[str, int]:
    return {name: value for name, value in vars(of).items() if isinstance(value, int)}
