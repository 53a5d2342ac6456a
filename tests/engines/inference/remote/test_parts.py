"""The small parts: events in bytes, metrics in text, errors in bodies, seeds, and which log-probabilities are alike."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llmkit.engines.inference.remote.link import said
from llmkit.engines.inference.remote.prometheus import metric_values
from llmkit.engines.inference.remote.refusals import check_logprobs
from llmkit.engines.inference.remote.seeds import folded
from llmkit.engines.inference.remote.sse import EventReader
from llmkit.engines.inference.remote.time_limits import TimeLimit
from llmkit.engines.inference.remote.waits import Waits
from llmkit.errors import EngineError, RequestError
from llmkit.types import SamplingParams, Structure

STREAM = b': ping\n\ndata: {"a": 1}\n\nevent: x\ndata: two\ndata:lines\n\nid: 3\n\ndata: [DONE]\n\n'
EVENTS = [b'{"a": 1}', b"two\nlines", b"[DONE]"]


@given(cuts=some.lists(some.integers(0, len(STREAM) + 8)), crlf=some.booleans())
def test_events_are_the_same_however_their_bytes_are_cut(cuts, crlf):
    stream = STREAM.replace(b"\n", b"\r\n") if crlf else STREAM
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = EventReader()
    found = [event for a, b in pairwise(places) for event in reader.push(stream[a:b])]
    assert found == EVENTS


def test_metrics_are_summed_over_their_labels():
    text = '# HELP x\nx{a="1 }"} 2.5\nx{a="2"} 1\ny 7 1700000000\nz NaN-not\n\n'
    assert metric_values(text) == {"x": 3.5, "y": 7.0}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "too long"}}', "too long"),
        ('{"object": "error", "message": "no such model"}', "no such model"),
        ('{"error": "plain"}', "plain"),
        ('{"detail": [{"loc": ["n"]}]}', "[{'loc': ['n']}]"),
        ("<html>", "<html>"),
        ("", "no reason given"),
    ],
)
def test_errors_are_read_in_the_shapes_that_servers_have_for_them(body, message):
    assert said(body) == message


def test_seeds_of_any_size_fit_and_stay_neighbours():
    assert folded(7) == 7
    seed = 2**64 - 5
    assert 0 <= folded(seed) < 2**62
    assert folded(seed + 1) == folded(seed) + 1


@pytest.mark.parametrize(
    ("served", "wanted", "sampling", "fits"),
    [
        ("raw", "raw", {"temperature": 0.5, "top_k": 3}, True),
        ("raw", "scaled", {}, True),
        ("raw", "scaled", {"top_p": 0.5, "min_new_tokens": 3}, True),
        ("raw", "scaled", {"temperature": 0.0}, True),
        ("raw", "scaled", {"temperature": 0.5}, False),
        ("raw", "processed", {}, True),
        ("raw", "processed", {"top_k": 3}, False),
        ("raw", "processed", {"temperature": 0.0, "top_k": 3}, True),
        ("processed", "scaled", {"temperature": 0.0, "top_p": 0.5}, True),
        ("processed", "raw", {"temperature": 0.0}, True),
        ("processed", "scaled", {"temperature": 0.0, "min_new_tokens": 2}, False),
        ("processed", "scaled", {"temperature": 0.5}, True),
        ("processed", "scaled", {"temperature": 0.5, "top_p": 0.9}, False),
        ("processed", "scaled", {"structure": Structure("json")}, False),
        ("processed", "raw", {}, True),
        ("processed", "raw", {"temperature": 0.5}, False),
        ("processed", "processed", {"temperature": 0.5, "top_k": 2}, True),
        ("raw", "any", {"temperature": 0.5}, True),
        ("raw", "raw", {"temperature": 0.5, "prompt_logprobs": True}, True),
        ("processed", "scaled", {"temperature": 0.5, "prompt_logprobs": True}, False),
    ],
)
def test_a_kind_of_logprobs_is_refused_exactly_where_it_differs(served, wanted, sampling, fits):
    params = SamplingParams(logprob_kind=wanted, **sampling)
    if fits:
        check_logprobs("S", params, served, "way out")
    else:
        with pytest.raises(RequestError, match=r"way out|ask for logprob_kind=raw"):
            check_logprobs("S", params, served, "way out")


def test_a_time_limit_ends_the_wait_under_way_and_every_later_one():
    async def story() -> None:
        limit = TimeLimit(asyncio.get_running_loop().time() + 0.02)
        assert await limit.wait(asyncio.sleep(0, "in time")) == "in time"
        with pytest.raises(TimeoutError):
            await limit.wait(asyncio.sleep(60))
        with pytest.raises(TimeoutError):
            await limit.wait(asyncio.sleep(0))
        await asyncio.sleep(0)  # the task is not cancelled any more
        limit.close()

    asyncio.run(story())


def test_a_time_limit_spares_what_is_done_between_two_waits():
    async def story() -> None:
        limit = TimeLimit(asyncio.get_running_loop().time() + 0.02)
        await limit.wait(asyncio.sleep(0))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await limit.wait(asyncio.sleep(0))

    asyncio.run(story())


def test_who_is_cancelled_in_a_time_limit_stays_so():
    async def story() -> None:
        limit = TimeLimit(asyncio.get_running_loop().time() + 60)
        task = asyncio.create_task(limit.wait(asyncio.sleep(60)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        limit.close()

    asyncio.run(story())


def test_a_cut_ends_what_waits_and_what_had_a_turn_and_nothing_later():
    async def story() -> None:
        waits, cut, late = Waits(), EngineError("cut"), EngineError("late")
        turn = waits.turn

        async def wait() -> None:
            async with waits.within(60, late):
                await asyncio.sleep(60)

        tasks = [asyncio.create_task(wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waits.cut(cut)
        waits.cut(cut)
        assert await asyncio.gather(*tasks, return_exceptions=True) == [cut] * 3
        with pytest.raises(EngineError, match="cut"):
            async with waits.within(60, late, turn):
                pytest.fail("it had its turn before the cut")
        async with waits.within(60, late):
            pass
        with pytest.raises(EngineError, match="late"):
            async with waits.within(0.01, late):
                await asyncio.sleep(60)

    asyncio.run(story())
