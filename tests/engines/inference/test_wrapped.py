"""A plain engine behind a server: one delta for each completion, and no promise that it cannot keep."""

import asyncio
from collections.abc import Sequence

import pytest

from llmkit.engines.inference.contract import Delta, GenerationRequest, ServingEngine
from llmkit.engines.inference.echo import Config, EchoEngine
from llmkit.engines.inference.wrapped import WrappedEngine, serving_engine
from llmkit.errors import RequestError
from llmkit.testing.tiny import tiny_codec
from llmkit.types import Completion, SamplingParams, Structure

IDS = tuple(tiny_codec().tokenizer("Hello world", add_special_tokens=False)["input_ids"])


class Plain:
    """An engine that only completes."""

    def __init__(self) -> None:
        self.version = 3
        self.seeds: list[int | None] = []

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        self.seeds.append(sampling.seed)
        if sampling.max_new_tokens == 1:
            await asyncio.sleep(10)
        return Completion(list(IDS), [-1.0] * len(IDS), [3] * len(IDS), "length")

    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def load_weights(self, version: int) -> None: ...
    async def close(self) -> None: ...


def stream(sampling: SamplingParams, **options) -> list[Delta]:
    async def whole() -> list[Delta]:
        engine = WrappedEngine(plain, tiny_codec().tokenizer, 512)
        found = [delta async for delta in engine.stream(GenerationRequest([1], sampling, **options))]
        assert engine.stats().num_running == 0
        return found

    plain = Plain()
    return asyncio.run(whole())


def test_an_engine_that_can_serve_is_left_alone():
    echo = EchoEngine(Config())
    assert serving_engine(echo, None, None) is echo
    assert isinstance(serving_engine(Plain(), None, None), ServingEngine)


def test_each_completion_is_one_delta():
    found = stream(SamplingParams(seed=5), num_completions=2)
    assert sorted(delta.index for delta in found) == [0, 1]
    for delta in found:
        assert (delta.text, delta.token_ids, delta.versions, delta.stop_reason) == (
            "Hello world", list(IDS), [3] * len(IDS), "length",
        )  # fmt: skip


def test_a_stop_string_cuts_text_and_tokens():
    (delta,) = stream(SamplingParams(stop=("lo w",)))
    assert (delta.text, delta.stop, delta.stop_reason) == ("Hel", "lo w", "stop")
    assert len(delta.token_ids) == len(delta.scores) == len(delta.versions) == len("Hello w")


def test_a_deadline_ends_it():
    (delta,) = stream(SamplingParams(max_new_tokens=1), timeout_seconds=0.02)
    assert (delta.stop_reason, delta.token_ids) == ("cancelled", [])


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(presence_penalty=1.0),
        SamplingParams(num_top_logprobs=2),
        SamplingParams(structure=Structure("json")),
        SamplingParams(logprob_kind="raw", temperature=0.5),
        SamplingParams(min_new_tokens=2),
    ],
)
def test_what_a_plain_engine_does_not_know_is_refused(sampling):
    with pytest.raises(RequestError, match="does not know"):
        stream(sampling)


def test_adapters_are_refused():
    with pytest.raises(RequestError, match="no adapter named 'poet'"):
        stream(SamplingParams(), adapter="poet")
