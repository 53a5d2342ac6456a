import pytest

from llmkit.engines.inference.remote.balancing import MOST_BEGINNINGS, SLACK, Balance

LONG = tuple(range(100))


def test_a_new_prompt_goes_where_least_is_to_do():
    assert Balance().choose(LONG, "", {0: 3, 1: 2, 2: 5}) == 1


def test_a_group_stays_together():
    balance = Balance()
    first = balance.choose(LONG, "", {0: 0, 1: 0})
    for member in range(SLACK):
        assert balance.choose(LONG, "", {first: member, 1 - first: 0}) == first


def test_a_group_is_divided_when_its_server_has_much_more_to_do():
    balance = Balance()
    assert balance.choose(LONG, "", {0: 0, 1: 1}) == 0
    assert balance.choose(LONG, "", {0: SLACK + 1, 1: 0}) == 1
    # The rest of the group goes on there.
    assert balance.choose(LONG, "", {0: 0, 1: 1}) == 1


def test_the_next_turn_follows_the_last_one():
    balance = Balance()
    assert balance.choose(LONG, "", {0: 0, 1: 1}) == 0
    assert balance.choose((*LONG, *range(50)), "", {0: 5, 1: 0}) == 0


def test_a_short_beginning_in_common_is_not_followed():
    balance = Balance()
    assert balance.choose(LONG, "", {0: 0, 1: 1}) == 0
    other = (*LONG[:40], *range(500, 700))
    assert balance.choose(other, "", {0: 5, 1: 0}) == 1


@pytest.mark.parametrize("salt", ["adapter", "salt"])
def test_what_is_computed_under_another_salt_is_not_followed(salt):
    balance = Balance()
    assert balance.choose(LONG, "", {0: 0, 1: 1}) == 0
    assert balance.choose(LONG, salt, {0: 5, 1: 0}) == 1


def test_a_server_that_is_gone_is_not_followed():
    balance = Balance()
    assert balance.choose(LONG, "", {0: 0, 1: 1}) == 0
    assert balance.choose(LONG, "", {1: 1}) == 1


def test_what_is_remembered_has_a_limit():
    balance = Balance()
    for start in range(MOST_BEGINNINGS + 10):
        balance.choose((start,), "", {0: 0})
    assert len(balance._places) == MOST_BEGINNINGS
