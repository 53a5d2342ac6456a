"""Which rollouts become demonstrations and pairs, beside saying it in other words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.config.rollout import SelectConfig
from llmkit.errors import DataError
from llmkit.rollout.lines import encode
from llmkit.rollout.selecting import Candidate, keep, pair, read_groups

REWARDS = st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=6)
GROUPS = st.lists(REWARDS, max_size=5)
THRESHOLD = st.none() | st.sampled_from([-1.0, 0.0, 0.3])


def candidates(groups: list[list[float]]) -> list[list[Candidate]]:
    """Candidates whose place tells group and member."""
    return [
        [
            Candidate(reward, member, hash((number, member)), Path("f"), (number, member))
            for member, reward in enumerate(group)
        ]
        for number, group in enumerate(groups)
    ]


@given(GROUPS, st.integers(1, 7), THRESHOLD)
def test_the_top_n_are_those_that_fewer_than_n_others_come_before(
    groups: list[list[float]], count: int, above: float | None
):
    expected = [
        {
            (number, member)
            for member, reward in enumerate(group)
            if (above is None or reward > above)
            and sum(other > reward or (other == reward and place < member) for place, other in enumerate(group)) < count
        }
        for number, group in enumerate(groups)
    ]
    chosen = keep(candidates(groups), f"top-{count}", above).chosen
    assert {one.place for (one,) in chosen} == set().union(*expected)
    if count == 1:
        assert keep(candidates(groups), "best", above).chosen == chosen


@given(GROUPS, THRESHOLD)
def test_all_keeps_every_one_above_the_threshold(groups: list[list[float]], above: float | None):
    chosen = keep(candidates(groups), "all", above).chosen
    wanted = [reward for group in groups for reward in group if above is None or reward > above]
    assert sorted(one.reward for (one,) in chosen) == sorted(wanted)


@given(GROUPS, st.sampled_from([0.0, 0.25, 1.0]), THRESHOLD)
def test_a_pair_is_a_groups_best_and_worst(groups: list[list[float]], margin: float, above: float | None):
    found = pair(candidates(groups), margin, above)
    expected = [
        (max(group), min(group))
        for group in groups
        if max(group) - min(group) > margin and (above is None or max(group) > above)
    ]
    assert [(best.reward, worst.reward) for best, worst in found.chosen] == expected
    assert found.num_groups == len(groups) == len(expected) + found.num_without
    assert found.num_equal == sum(len(set(group)) == 1 for group in groups)
    assert found.num_ties == sum(len(set(group)) > 1 and group.count(max(group)) > 1 for group in groups)
    assert all(best.place[0] == worst.place[0] for best, worst in found.chosen)


@pytest.mark.parametrize("how", ["first", "top-0", "top-", "best-worst"])
def test_other_ways_to_keep_are_refused(how: str):
    with pytest.raises(ValueError, match="none of best, all, top-N"):
        SelectConfig.model_validate({"keep": how})


def write(path: Path, *rollouts: tuple[int, str, float | None, str]) -> Path:
    """A file of rollouts: group, completion, reward, stop reason."""
    lines = [
        {"group_id": group, "member": number, "prompt": "?", "completion": text, "reward": reward, "stop_reason": stop}
        for number, (group, text, reward, stop) in enumerate(rollouts)
    ]
    path.write_bytes(b"".join(map(encode, lines)))
    return path


class TestCandidates:
    def test_groups_of_two_files_are_not_one(self, tmp_path: Path):
        files = [write(tmp_path / name, (0, "a", 1.0, "stop"), (0, "b", 0.0, "stop")) for name in ("a", "b")]
        groups = read_groups(files, SelectConfig())
        assert [len(group) for group in groups.groups.values()] == [2, 2]

    def test_what_is_left_out_is_counted(self, tmp_path: Path):
        path = write(
            tmp_path / "a",
            (0, "a", 1.0, "stop"),
            (0, "a", 1.0, "stop"),
            (0, "b", 0.5, "length"),
            (1, "a", None, "stop"),
            (1, "a", 0.5, "stop"),
        )
        groups = read_groups([path], SelectConfig())
        assert (groups.num_rollouts, groups.num_repeated, groups.num_truncated, groups.num_unscored) == (5, 1, 1, 1)
        assert [len(group) for group in groups.groups.values()] == [1, 1]
        assert len(read_groups([path], SelectConfig(truncated=True)).groups[path, 0]) == 2

    def test_without_any_reward_there_is_nothing_to_go_by(self, tmp_path: Path):
        path = write(tmp_path / "a", (0, "a", None, "stop"))
        with pytest.raises(DataError, match="No rollout has a reward"):
            read_groups([path], SelectConfig())

    def test_a_torn_line_is_told(self, tmp_path: Path):
        path = write(tmp_path / "a", (0, "a", 1.0, "stop"))
        path.write_bytes(path.read_bytes() + b'{"group_id": 1, "pro')
        with pytest.raises(DataError, match=r"a:2: no whole rollout. Finish the run with --resume"):
            read_groups([path], SelectConfig())

    def test_the_choice_does_not_depend_on_who_was_faster(self, tmp_path: Path):
        path = write(tmp_path / "a", (1, "a", 1.0, "stop"), (1, "b", 1.0, "stop"), (0, "c", 0.0, "stop"))
        lines = path.read_bytes().splitlines(keepends=True)
        other = tmp_path / "b"
        other.write_bytes(b"".join(reversed(lines)))
        chosen = [
            [
                (one.member, one.reward)
                for (one,) in keep(read_groups([file], SelectConfig()).groups.values(), "best").chosen
            ]
            for file in (path, other)
        ]
        assert chosen[0] == chosen[1] == [(2, 0.0), (0, 1.0)]
