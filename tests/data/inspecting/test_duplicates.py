"""Equal rows are found by their digests."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llmkit.data.inspecting.duplicates import Repeats, RowDigests
from llmkit.types import Source


def digests(*rows: tuple[int, int, int]) -> RowDigests:
    """Digests of rows (tokens, prompt, answer) of a.jsonl, from line 1."""
    found = RowDigests()
    for line, row in enumerate(rows, start=1):
        found.add(*row, Source("a.jsonl", line))
    return found


def test_rows_with_the_same_tokens_are_told_with_their_places():
    found = digests((7, 1, 1), (9, 2, 2), (7, 1, 1), (5, 3, 3), (9, 2, 2), (7, 1, 1))
    assert found.same_tokens() == Repeats(2, 5, [["a.jsonl:1", "a.jsonl:3", "a.jsonl:6"], ["a.jsonl:2", "a.jsonl:5"]])


def test_one_prompt_with_two_answers_is_told_and_a_mere_duplicate_is_not():
    found = digests((1, 4, 1), (2, 8, 2), (1, 4, 1), (3, 8, 3))
    assert found.same_prompt_other_answer() == Repeats(1, 2, [["a.jsonl:2", "a.jsonl:4"]])


def test_rows_without_tokens_or_prompt_repeat_nothing():
    found = digests((0, 0, 1), (0, 0, 2))
    assert found.same_tokens() == Repeats()
    assert found.same_prompt_other_answer() == Repeats()
    assert RowDigests().same_tokens() == Repeats()


def test_rows_of_several_files_keep_their_places():
    found = RowDigests()
    for path in ("b.jsonl", "a.jsonl"):
        found.add(2**64 - 1, 1, 1, Source(path, 3))
    assert found.same_tokens().examples == [["b.jsonl:3", "a.jsonl:3"]]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 3)), max_size=60))
def test_groups_are_those_of_a_plain_count(rows: list[tuple[int, int, int]]):
    found = digests(*rows)
    tokens = {value: count for value, count in Counter(row[0] for row in rows if row[0]).items() if count > 1}
    assert (found.same_tokens().groups, found.same_tokens().rows) == (len(tokens), sum(tokens.values()))
    by_prompt = {prompt: [row[2] for row in rows if row[1] == prompt] for _, prompt, _ in rows if prompt}
    several = [answers for answers in by_prompt.values() if len(set(answers)) > 1]
    answered = found.same_prompt_other_answer()
    assert (answered.groups, answered.rows) == (len(several), sum(map(len, several)))
