"""Servers that fail in every way that servers do; nothing is lost, drawn twice or waited for without end."""

import asyncio
import time

import pytest
from tests.engines.inference.remote.conftest import QUICK, ScriptedFleet, ScriptedServer, all_of, ids_of, tell, until

from llmkit.engines.inference.contract import GenerationRequest
from llmkit.engines.inference.remote.engine import RemoteEngine
from llmkit.errors import EngineBusyError, EngineError, RequestError
from llmkit.types import SamplingParams

PROMPT = (5, 6, 7)
FIVE = SamplingParams(max_new_tokens=5, seed=2)
TOKENS = [90, 97, 104, 111, 118]


def first(processes: list[ScriptedServer], **settings: object) -> None:
    """Of servers with the same load the first is asked first."""
    processes[0].set(**settings)


@pytest.mark.parametrize("fault", ["break", "status:500", "garbage", "die", "status:401"])
def test_another_server_draws_what_one_failed_to(servers, fault):
    processes = servers(2)
    first(processes, faults=[fault])
    processes[0].is_unharmed = fault != "die"

    async def story(engine: RemoteEngine) -> None:
        assert (await engine.generate(PROMPT, FIVE)).token_ids == TOKENS

    tell(processes, story)
    assert processes[1].ask()["num_requests"] == 1


@pytest.mark.parametrize("fault", ["break", "garbage", "error", "end"])
def test_after_the_first_token_a_failure_is_the_callers(servers, fault):
    processes = servers(2)
    first(processes, faults=[fault])

    async def story(engine: RemoteEngine) -> None:
        seen: list[int] = []

        async def read() -> None:
            async for delta in engine.stream(GenerationRequest(PROMPT, FIVE)):
                seen.extend(delta.token_ids)

        with pytest.raises(EngineError, match=processes[0].url):
            await read()
        assert seen == TOKENS[:2]

    tell(processes, story)
    assert processes[1].ask()["num_requests"] == 0


def test_before_the_first_token_a_stream_goes_to_another_server(servers):
    processes = servers(2)
    first(processes, faults=["status:500"])

    async def story(engine: RemoteEngine) -> None:
        deltas = await all_of(engine.stream(GenerationRequest(PROMPT, FIVE)))
        assert ids_of(deltas) == TOKENS

    tell(processes, story)


def test_a_slow_first_token_is_waited_for(servers):
    processes = servers(2)
    first(processes, faults=["slow"])

    async def story(engine: RemoteEngine) -> None:
        deltas = await all_of(engine.stream(GenerationRequest(PROMPT, FIVE)))
        assert ids_of(deltas) == TOKENS

    tell(processes, story)
    assert processes[1].ask()["num_requests"] == 0


def test_what_a_server_refuses_is_not_asked_elsewhere(servers):
    processes = servers(2)
    first(processes, faults=["status:400"])

    async def story(engine: RemoteEngine) -> None:
        with pytest.raises(RequestError, match="the script says status:400"):
            await engine.generate(PROMPT, FIVE)

    tell(processes, story)
    assert processes[1].ask()["num_requests"] == 0


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_sends_a_request_to_another_one_and_is_not_given_up(servers, status):
    processes = servers(2)
    first(processes, faults=[f"status:{status}"])

    async def story(engine: RemoteEngine) -> None:
        assert (await engine.generate(PROMPT, FIVE)).token_ids == TOKENS
        other = (9, 9, 9)
        await engine.generate(other, FIVE)

    tell(processes, story)
    assert [one.ask()["num_requests"] for one in processes] == [2, 1]


def test_when_all_are_busy_a_stream_hears_it_and_a_completion_waits(servers):
    processes = servers(1)

    async def story(engine: RemoteEngine) -> None:
        first(processes, faults=["status:503"])
        with pytest.raises(EngineBusyError, match="takes no request now") as caught:
            await all_of(engine.stream(GenerationRequest(PROMPT, FIVE)))
        assert caught.value.retry_after_seconds == 0.05
        first(processes, faults=["status:503", "status:429"])
        assert (await engine.generate(PROMPT, FIVE)).token_ids == TOKENS

    tell(processes, story)


def test_a_request_that_every_server_fails_on_is_an_error_with_all_failures(servers):
    processes = servers(1)
    first(processes, faults=["status:500"] * 9)

    async def story(engine: RemoteEngine) -> None:
        with pytest.raises(EngineError, match="failed on 4 servers, one after another"):
            await engine.generate(PROMPT, FIVE)

    tell(processes, story)
    assert processes[0].ask()["num_requests"] == 4


def test_a_frozen_server_is_noticed_and_its_requests_go_elsewhere(servers):
    # Nothing closes a connection here: it is the looks without an answer that tell.
    processes = servers(2)
    first(processes, seconds_per_token=0.2)

    async def story(engine: RemoteEngine) -> None:
        task = asyncio.ensure_future(engine.generate(PROMPT, FIVE))
        await until(lambda: processes[0].ask()["num_running"] == 1)
        processes[0].freeze()
        assert (await task).token_ids == TOKENS
        processes[0].thaw()
        await until(lambda: len(engine._members.ready) == 2)

    tell(processes, story)


def test_a_stream_that_stops_coming_ends_in_an_error(servers):
    processes = servers(1)

    async def story(engine: RemoteEngine) -> None:
        processes[0].set(seconds_per_token=30)
        with pytest.raises(EngineError, match=r"no answer within 0\.3 seconds"):
            await all_of(engine.stream(GenerationRequest(PROMPT, FIVE)))

    tell(processes, story, deadlines=QUICK.model_copy(update={"idle_seconds": 0.3}))


def test_a_completion_that_takes_too_long_ends_in_an_error(servers):
    processes = servers(1)
    first(processes, seconds_per_token=30)

    async def story(engine: RemoteEngine) -> None:
        with pytest.raises(EngineError, match=r"within 0\.5 seconds"):
            await engine.generate(PROMPT, FIVE)
        await until(lambda: processes[0].ask()["num_running"] == 0)

    tell(processes, story, deadlines=QUICK.model_copy(update={"request_seconds": 0.5}))


def test_a_server_that_comes_back_is_asked_again(servers):
    processes = servers(1)

    async def story(engine: RemoteEngine) -> None:
        processes[0].kill()
        task = asyncio.ensure_future(engine.generate(PROMPT, FIVE))
        await asyncio.sleep(0.3)
        assert not task.done()
        await asyncio.to_thread(processes[0].start)
        assert (await task).token_ids == TOKENS

    tell(processes, story)


def test_when_no_server_comes_back_in_time_it_is_an_error_that_says_why(servers):
    processes = servers(1)

    async def story(engine: RemoteEngine) -> None:
        processes[0].kill()
        start = time.monotonic()
        with pytest.raises(EngineError, match=rf"no server could be asked for 1 seconds.*{processes[0].url}"):
            await engine.generate(PROMPT, FIVE)
        assert time.monotonic() - start < 20

    tell(processes, story, deadlines=QUICK.model_copy(update={"recovery_seconds": 1}))


def test_when_all_servers_are_gone_for_good_nobody_waits(servers):
    processes = servers(2)
    fleet = ScriptedFleet(processes)

    async def story(engine: RemoteEngine) -> None:
        for process in processes:
            process.kill()
        fleet.failures = ["server 0 crashed: out of memory", "server 1 crashed: no idea"]
        with pytest.raises(EngineError, match="all servers are gone: server 0 crashed: out of memory; server 1"):
            await engine.generate(PROMPT, FIVE)

    tell(processes, story, fleet=fleet, deadlines=QUICK.model_copy(update={"recovery_seconds": 1000}))


def test_no_engine_without_a_server(servers):
    processes = servers(1)
    processes[0].kill()
    with pytest.raises(EngineError, match=f"no server answers: {processes[0].url}: asking what it serves"):
        tell(processes, None, deadlines=QUICK.model_copy(update={"recovery_seconds": 0.1}))  # type: ignore[arg-type]


def test_with_one_of_two_servers_killed_in_mid_run_nothing_is_lost_or_doubled(servers):
    processes = servers(2)
    for process in processes:
        process.set(seconds_per_token=0.01)
    prompts = [(index + 1, 7, 7) for index in range(40)]

    async def story(engine: RemoteEngine) -> None:
        tasks = [asyncio.ensure_future(engine.generate(prompt, FIVE)) for prompt in prompts]
        await until(lambda: processes[1].ask()["num_running"] > 5)
        processes[1].kill()
        completions = await asyncio.gather(*tasks)
        for prompt, completion in zip(prompts, completions, strict=True):
            start = sum(prompt) + 62 + 10
            assert completion.token_ids == [start + 7 * place for place in range(5)]
        stats = engine.stats()
        assert stats.num_generated_tokens == 5 * len(prompts)

    tell(processes, story)
