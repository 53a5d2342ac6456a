"""The scripted engine behind a server: streams, groups, pauses, deadlines, adapters."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmkit.engines.inference.contract import Delta, GenerationRequest, ServingEngine
from llmkit.engines.inference.echo import Config, EchoEngine
from llmkit.errors import EngineError, RequestError
from llmkit.testing.tiny import tiny_codec
from llmkit.types import SamplingParams, Structure

LONG = tuple(range(100))


def run(story: Callable[[EchoEngine], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        engine = EchoEngine(Config.model_validate(settings), tiny_codec().tokenizer)
        try:
            await asyncio.wait_for(story(engine), 20)
        finally:
            await engine.close()

    asyncio.run(whole())


async def deltas(engine: EchoEngine, request: GenerationRequest) -> list[Delta]:
    return [delta async for delta in engine.stream(request)]


def test_it_can_serve():
    assert isinstance(EchoEngine(Config()), ServingEngine)


def test_a_group_follows_the_script_from_its_seed():
    async def story(engine: EchoEngine) -> None:
        found = await deltas(engine, GenerationRequest([1], SamplingParams(seed=1), num_completions=3))
        texts = ["".join(delta.text for delta in found if delta.index == index) for index in range(3)]
        assert texts == ["two", "three", "one"]
        assert [
            sum(delta.stop_reason is not None for delta in found if delta.index == index) for index in range(3)
        ] == ([1, 1, 1])

    run(story, texts=["one", "two", "three"])


def test_a_stop_string_ends_the_text_before_it_and_the_tokens_with_it():
    async def story(engine: EchoEngine) -> None:
        found = await deltas(engine, GenerationRequest([1], SamplingParams(stop=("lo w",))))
        assert "".join(delta.text for delta in found) == "Hel"
        assert sum(len(delta.token_ids) for delta in found) == len("Hello w")
        assert (found[-1].stop_reason, found[-1].stop) == ("stop", "lo w")

    run(story, texts=["Hello world"])


def test_pauses_hold_or_end():
    async def story(engine: EchoEngine) -> None:
        request = GenerationRequest([1], SamplingParams(max_new_tokens=100))
        kept = asyncio.create_task(deltas(engine, request))
        await asyncio.sleep(0.01)
        await engine.pause("keep")
        count = engine.stats().num_generated_tokens
        await asyncio.sleep(0.02)
        assert engine.stats().num_generated_tokens <= count + 1
        await engine.resume()
        assert (await kept)[-1].stop_reason == "length"
        ended = asyncio.create_task(deltas(engine, request))
        await asyncio.sleep(0.01)
        await engine.pause()
        assert (await ended)[-1].stop_reason == "cancelled"
        await engine.resume()
        waited = asyncio.create_task(deltas(engine, request))
        await asyncio.sleep(0.01)
        await engine.pause("wait")
        assert waited.done() or engine.stats().num_running == 0

    run(story, script=[LONG], seconds_per_token=0.001)


def test_a_deadline_ends_what_runs_and_what_waits():
    async def story(engine: EchoEngine) -> None:
        request = GenerationRequest([1], SamplingParams(max_new_tokens=100), timeout_seconds=0.05)
        found = await deltas(engine, request)
        assert found[-1].stop_reason == "cancelled"
        assert len(found) > 1
        await engine.pause()
        (held,) = await deltas(engine, request)
        assert held.stop_reason == "cancelled"

    run(story, script=[LONG], seconds_per_token=0.005)


def test_closing_a_stream_frees_its_place():
    async def story(engine: EchoEngine) -> None:
        stream = engine.stream(GenerationRequest([1], SamplingParams(max_new_tokens=100), num_completions=4))
        await anext(stream)
        assert engine.stats().num_running == 4
        await stream.aclose()
        assert engine.stats().num_running == 0

    run(story, script=[LONG], seconds_per_token=0.001)


def test_what_it_refuses(tmp_path):
    async def story(engine: EchoEngine) -> None:
        for request in (
            GenerationRequest([], SamplingParams()),
            GenerationRequest([1], SamplingParams(max_new_tokens=99)),
            GenerationRequest([1], SamplingParams(max_new_tokens=5), adapter="none"),
            GenerationRequest([1], SamplingParams(max_new_tokens=5, structure=Structure("json"))),
            GenerationRequest([1], SamplingParams(max_new_tokens=5, structure=Structure("regex", "["))),
        ):
            with pytest.raises(RequestError):
                await deltas(engine, request)
        with pytest.raises(RequestError, match=r"adapter_config\.json"):
            await engine.load_adapter("x", tmp_path)
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await deltas(engine, GenerationRequest([1], SamplingParams(max_new_tokens=5)))

    run(story, texts=["no json"], context_length=50)
