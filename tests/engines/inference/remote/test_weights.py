"""Pauses and new weights: no token is drawn with other weights than its version says."""

import asyncio

import pytest
from tests.engines.inference.remote.conftest import RecordedSync, ScriptedFleet, all_of, tell, until

from llmkit.engines.inference.contract import GenerationRequest
from llmkit.engines.inference.remote.engine import RemoteEngine
from llmkit.engines.inference.remote.openai_dialect import OpenAIDialect
from llmkit.errors import EngineError, RequestError
from llmkit.types import Completion, SamplingParams

PROMPT = (5, 6, 7)
FIVE = SamplingParams(max_new_tokens=5, seed=2)
LONG = SamplingParams(max_new_tokens=400, seed=2)


def weights_of(completion: Completion, sampling: SamplingParams = FIVE) -> int:
    """The weights that the scripted server had when it drew."""
    start = sum(PROMPT) + 31 * (sampling.seed or 0)
    return next(one for one in range(20) if (start + 1000 * one) % 900 + 10 == completion.token_ids[0])


def test_tokens_carry_the_version_of_the_weights_that_drew_them(servers):
    processes = servers(2)
    sync = RecordedSync(processes)

    async def story(engine: RemoteEngine) -> None:
        for version in (0, 1, 2, 5):
            if version:
                await engine.load_weights(version)
            completion = await engine.generate(PROMPT, FIVE)
            assert set(completion.versions) == {version} == {weights_of(completion)} == {engine.version}

    tell(processes, story, sync=sync)
    assert sync.calls[:2] == [("update", 1, [0, 1]), ("verify", 1, [0, 1])]
    assert processes[0].ask()["calls"] == ["pause abort", "resume"] * 3


def test_requests_that_run_end_before_the_weights_change_and_new_ones_wait_for_them(servers):
    processes = servers(2)
    for process in processes:
        process.set(seconds_per_token=0.02)
    sync = RecordedSync(processes)

    async def story(engine: RemoteEngine) -> None:
        running = [asyncio.ensure_future(engine.generate(PROMPT, FIVE)) for _ in range(6)]
        await until(lambda: engine.stats().num_running == 6)
        loading = asyncio.ensure_future(engine.load_weights(1))
        await asyncio.sleep(0)
        waiting = [asyncio.ensure_future(engine.generate(PROMPT, FIVE)) for _ in range(6)]
        await loading
        for tasks, version in ((running, 0), (waiting, 1)):
            for completion in await asyncio.gather(*tasks):
                assert completion.stop_reason == "length"
                assert set(completion.versions) == {version} == {weights_of(completion)}

    tell(processes, story, sync=sync)


def test_without_anything_to_bring_them_new_weights_are_refused(servers):
    async def story(engine: RemoteEngine) -> None:
        await engine.load_weights(0)
        with pytest.raises(EngineError, match="nothing brings them version 1"):
            await engine.load_weights(1)
        await engine.generate(PROMPT, FIVE)

    tell(servers(1), story)


def test_after_an_update_that_failed_nothing_is_drawn_until_one_succeeds(servers):
    processes = servers(2)
    sync = RecordedSync(processes)

    async def story(engine: RemoteEngine) -> None:
        sync.error = EngineError("sending weights: server 1 has no room")
        with pytest.raises(EngineError, match="no room"):
            await engine.load_weights(1)
        with pytest.raises(EngineError, match="the weights of the servers are unknown"):
            await engine.generate(PROMPT, FIVE)
        sync.error = None
        await engine.load_weights(2)
        assert set((await engine.generate(PROMPT, FIVE)).versions) == {2}

    tell(processes, story, sync=sync)


def test_a_server_that_dies_in_an_update_does_not_keep_the_others_from_it(servers):
    processes = servers(2)

    class Dying(RecordedSync):
        async def update(self, links, version):
            if len(links) == 2:
                processes[1].kill()
            await super().update(links, version)

    sync = Dying(processes)

    async def story(engine: RemoteEngine) -> None:
        await engine.load_weights(1)
        assert engine.current_starts() == [1, None]
        completion = await engine.generate(PROMPT, FIVE)
        assert set(completion.versions) == {1} == {weights_of(completion)}
        await asyncio.to_thread(processes[1].start)
        await until(lambda: len(engine._members.ready) == 2)
        assert list(engine.current_starts()) == [engine.fleet.num_starts(0), engine.fleet.num_starts(1)]
        assert processes[1].ask()["weights"] == 1

    tell(processes, story, sync=sync)
    assert ("restore", 1, [1]) in sync.calls


def test_a_server_that_was_started_again_is_asked_only_with_its_weights(servers):
    processes = servers(2)
    sync, fleet = RecordedSync(processes), ScriptedFleet(processes)

    async def story(engine: RemoteEngine) -> None:
        await engine.load_weights(3)
        processes[0].kill()
        fleet.starts[0] = 2
        await asyncio.to_thread(processes[0].start)
        assert processes[0].ask()["weights"] == 0
        completions = await asyncio.gather(*(engine.generate((index, 6, 7), FIVE) for index in range(20)))
        assert {version for one in completions for version in one.versions} == {3}
        await until(lambda: len(engine._members.ready) == 2)
        for body in processes[0].ask()["bodies"]:
            assert body, "only with weights 3"
        assert processes[0].ask()["weights"] == 3

    tell(processes, story, sync=sync, fleet=fleet)
    assert sync.calls.count(("restore", 3, [0])) == 1


def test_an_answer_of_a_server_that_was_started_again_meanwhile_does_not_count(servers):
    processes = servers(2)
    sync, fleet = RecordedSync(processes), ScriptedFleet(processes)
    processes[0].set(seconds_per_token=0.1)

    async def story(engine: RemoteEngine) -> None:
        await engine.load_weights(1)
        task = asyncio.ensure_future(engine.generate(PROMPT, FIVE))
        await until(lambda: processes[0].ask()["num_running"] == 1)
        processes[0].set(weights=0)  # what a new process would have
        fleet.starts[0] = 2
        assert set((await task).versions) == {1} == {weights_of(await task)}

    tell(processes, story, sync=sync, fleet=fleet)


def test_the_adapter_that_is_the_policy_is_asked_for(servers):
    processes = servers(1)
    sync = RecordedSync(processes)

    async def story(engine: RemoteEngine) -> None:
        await engine.generate(PROMPT, FIVE)
        sync.adapter = "policy"
        await engine.generate(PROMPT, FIVE)

    tell(processes, story, sync=sync)
    assert [body["model"] for body in processes[0].ask()["bodies"]] == ["m", "policy"]


def test_a_pause_ends_what_runs_with_what_it_has_and_holds_what_comes(servers):
    processes = servers(2)
    for process in processes:
        process.set(seconds_per_token=0.02)

    async def story(engine: RemoteEngine) -> None:
        running = [asyncio.ensure_future(engine.generate((index, 6, 7), LONG)) for index in range(4)]
        await until(lambda: sum(one.ask()["num_running"] for one in processes) == 4)
        await asyncio.sleep(0.1)
        await engine.pause()
        for completion in await asyncio.gather(*running):
            assert completion.stop_reason == "cancelled"
            assert 0 < len(completion.token_ids) < 400
        held = asyncio.ensure_future(engine.generate(PROMPT, FIVE))
        await asyncio.sleep(0.2)
        assert not held.done()
        assert engine.stats().num_waiting == 1
        await engine.resume()
        assert (await held).stop_reason == "length"

    tell(processes, story)
    assert processes[0].ask()["calls"] == ["pause abort", "resume"]


@pytest.mark.parametrize("can_pause", [True, False])
def test_servers_without_a_pause_are_paused_by_leaving_them(servers, can_pause):
    processes = servers(1)
    processes[0].set(seconds_per_token=0.02, can_pause=can_pause)

    async def story(engine: RemoteEngine) -> None:
        task = asyncio.ensure_future(all_of(engine.stream(GenerationRequest(PROMPT, LONG))))
        await until(lambda: engine.stats().num_generated_tokens > 2)
        await engine.pause()
        deltas = await task
        assert deltas[-1].stop_reason == "cancelled"
        await until(lambda: processes[0].ask()["num_running"] == 0)
        await engine.resume()
        # It was left, not given up.
        assert (await engine.generate(PROMPT, FIVE)).stop_reason == "length"

    tell(processes, story)


def test_a_pause_can_wait_for_what_runs(servers):
    processes = servers(1)
    processes[0].set(seconds_per_token=0.02)

    async def story(engine: RemoteEngine) -> None:
        task = asyncio.ensure_future(engine.generate(PROMPT, FIVE))
        await until(lambda: engine.stats().num_running == 1)
        await engine.pause("wait")
        assert task.done()
        assert task.result().stop_reason == "length"
        await engine.resume()

    tell(processes, story)


def test_a_pause_can_hold_what_runs(servers):
    processes = servers(1)

    async def story(engine: RemoteEngine) -> None:
        await engine.pause("keep")
        assert processes[0].ask()["calls"] == ["pause keep"]
        await engine.resume()

    tell(processes, story)


def test_weights_do_not_change_under_requests_that_are_held(servers):
    processes = servers(1)
    processes[0].set(seconds_per_token=0.05)
    sync = RecordedSync(processes)

    async def story(engine: RemoteEngine) -> None:
        task = asyncio.ensure_future(engine.generate(PROMPT, LONG))
        await until(lambda: processes[0].ask()["num_running"] == 1)
        await engine.pause("keep")
        with pytest.raises(EngineError, match="pause with abort or wait"):
            await engine.load_weights(1)
        await engine.resume()
        task.cancel()

    tell(processes, story, sync=sync)


def test_servers_that_cannot_hold_requests_say_so_and_go_on(servers):
    async def story(engine: RemoteEngine) -> None:
        with pytest.raises(RequestError, match="mode=keep"):
            await engine.pause("keep")
        assert (await engine.generate(PROMPT, FIVE)).stop_reason == "length"

    tell(servers(1), story, dialect=OpenAIDialect())


def test_a_server_that_came_back_in_a_pause_draws_after_it(servers):
    processes = servers(2)

    async def story(engine: RemoteEngine) -> None:
        await engine.pause()
        processes[0].kill()
        await asyncio.to_thread(processes[0].start)
        await engine.resume()
        completions = await asyncio.gather(*(engine.generate((index, 6, 7), FIVE) for index in range(8)))
        assert {one.stop_reason for one in completions} == {"length"}

    tell(processes, story)


def test_closing_ends_what_runs(servers):
    processes = servers(1)
    processes[0].set(seconds_per_token=0.05)

    async def story(engine: RemoteEngine) -> None:
        task = asyncio.ensure_future(all_of(engine.stream(GenerationRequest(PROMPT, LONG))))
        await until(lambda: engine.stats().num_generated_tokens > 0)
        await engine.close()
        assert (await task)[-1].stop_reason == "cancelled"
        await until(lambda: processes[0].ask()["num_running"] == 0)

    tell(processes, story)


def test_an_update_finds_servers_that_could_not_be_restored(servers):
    processes = servers(1)
    fleet = ScriptedFleet(processes)

    class Forgetful(RecordedSync):
        async def restore(self, link):
            raise EngineError("the last weights were not kept")

    sync = Forgetful(processes)

    async def story(engine: RemoteEngine) -> None:
        await engine.load_weights(1)
        fleet.starts[0] = 2
        await until(lambda: engine._members.all[0].trouble is not None)
        await engine.load_weights(2)
        assert set((await engine.generate(PROMPT, FIVE)).versions) == {2}

    tell(processes, story, sync=sync, fleet=fleet)
