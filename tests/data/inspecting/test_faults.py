"""Faults of the same kind are counted together."""

import pytest

from llmkit.data.inspecting.faults import MAX_GROUPS, Group, Groups, split_place


@pytest.mark.parametrize(
    ("message", "place", "reason"),
    [
        ("a.jsonl:3: no 'messages'", "a.jsonl:3", "no 'messages'"),
        ("a.json:3:14: not JSON: expected ','", "a.json:3:14", "not JSON: expected ','"),
        ("set[train]:7: empty", "set[train]:7", "empty"),
        ("the file went away", "", "the file went away"),
    ],
)
def test_an_error_begins_with_its_place(message: str, place: str, reason: str):
    assert split_place(message) == (place, reason)


def test_faults_that_differ_in_numbers_and_quoted_values_are_one_kind():
    groups = Groups()
    groups.add_fault("a.jsonl:1: 900 tokens, more than data.max_length=512")
    groups.add_fault("a.jsonl:4: the role 'usr'")
    groups.add_fault("a.jsonl:5: 1,200 tokens, more than data.max_length=512")
    assert list(groups) == [
        Group("faulty", "900 tokens, more than data.max_length=512", 2, ["a.jsonl:1", "a.jsonl:5"]),
        Group("faulty", "the role 'usr'", 1, ["a.jsonl:4"]),
    ]


def test_faults_come_before_what_is_merely_cut():
    groups = Groups()
    for _ in range(3):
        groups.add("truncated", "too long", "a.jsonl:1")
    groups.add("dropped", "too long", "a.jsonl:2")
    groups.add_fault("a.jsonl:3: empty")
    assert [group.outcome for group in groups] == ["faulty", "dropped", "truncated"]


def test_every_fault_counts_however_many_kinds_there_are():
    groups = Groups()
    for number in range(MAX_GROUPS + 50):
        groups.add_fault(f"a.jsonl:{number}: fault {'x' * (number + 1)}")
    assert sum(group.count for group in groups) == MAX_GROUPS + 50
    assert next(iter(groups)) == Group("faulty", "other reasons", 50, [f"a.jsonl:{MAX_GROUPS + i}" for i in range(5)])
