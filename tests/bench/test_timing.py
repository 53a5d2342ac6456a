import pytest

from llmkit.bench.timing import alternate, rates, spread, summary, turns


def test_every_other_round_runs_backwards():
    assert list(turns(["a", "b"], 3)) == ["a", "b", "b", "a", "a", "b"]


def test_everyone_warms_up_before_anyone_counts():
    ran: list[str] = []
    durations = {"a": iter([9.0, 1.0, 2.0]), "b": iter([8.0, 3.0, 4.0])}

    def run(name: str) -> float:
        ran.append(name)
        return next(durations[name])

    seconds = alternate({"a": lambda: run("a"), "b": lambda: run("b")}, repeats=2)
    assert ran == ["a", "b", "a", "b", "b", "a"]
    assert seconds == {"a": [1.0, 2.0], "b": [3.0, 4.0]}


def test_a_summary_is_median_least_and_most():
    assert summary([3.0, 1.0, 2.0]) == {"seconds": 2.0, "seconds_min": 1.0, "seconds_max": 3.0}


def test_rates_are_those_of_the_median_run():
    found = rates([2.0, 1.0, 5.0], rows=100, tokens=3000)
    assert found["rows_per_second"] == 50
    assert found["tokens_per_second"] == 1500


def test_the_spread_is_half_the_range_over_the_median():
    assert spread([1.0, 2.0, 3.0]) == pytest.approx(0.5)
    assert spread([2.0]) == 0
