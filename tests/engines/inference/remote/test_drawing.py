"""Completions over HTTP: tokens, text, stop strings, several at once, and requests that are refused before."""

import asyncio
from pathlib import Path

import pytest
from tests.engines.inference.remote.conftest import all_of, ids_of, tell, until
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llmkit.engines.inference.contract import GenerationRequest, ServingEngine
from llmkit.engines.inference.remote.engine import RemoteEngine
from llmkit.engines.inference.remote.openai_dialect import OpenAIDialect
from llmkit.errors import EngineError, RequestError
from llmkit.testing.tiny import tiny_model
from llmkit.types import SamplingParams

PROMPT = (5, 6, 7)
FIVE = SamplingParams(max_new_tokens=5, seed=2)
"""The scripted server answers it with 90, 97, 104, ... after this prompt."""
TOKENS = [90, 97, 104, 111, 118]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model())


def test_it_can_stand_behind_a_server(servers):
    async def story(engine: RemoteEngine) -> None:
        assert isinstance(engine, ServingEngine)
        assert engine.context_length == 512

    tell(servers(1), story)


def test_a_completion_is_what_the_server_drew(servers):
    async def story(engine: RemoteEngine) -> None:
        completion = await engine.generate(PROMPT, FIVE)
        assert completion.token_ids == TOKENS
        assert completion.logprobs == [-0.5] * 5
        assert completion.versions == [0] * 5
        assert completion.stop_reason == "length"

    tell(servers(1), story)


def test_a_stream_has_all_completions_and_their_ends(servers):
    async def story(engine: RemoteEngine) -> None:
        deltas = await all_of(engine.stream(GenerationRequest(PROMPT, FIVE, num_completions=2)))
        for index in (0, 1):
            own = [delta for delta in deltas if delta.index == index]
            assert ids_of(own) == [token + 31 * index for token in TOKENS]
            assert [delta.stop_reason for delta in own] == [None] * 4 + ["length"]

    tell(servers(1), story)


def test_the_likeliest_tokens_come_in_order(servers):
    async def story(engine: RemoteEngine) -> None:
        sampling = SamplingParams(max_new_tokens=1, seed=2, num_top_logprobs=2)
        (delta,) = await all_of(engine.stream(GenerationRequest(PROMPT, sampling)))
        assert delta.scores[0].top == ((90, -0.5), (3, -2.0))

    tell(servers(1), story)


def test_a_stop_token_ends_a_completion_whether_the_server_knows_it_or_not(servers):
    processes = servers(1)

    async def story(engine: RemoteEngine) -> None:
        # The dialect does not send stop tokens: it is the dialect that finds this one.
        completion = await engine.generate(PROMPT, SamplingParams(max_new_tokens=5, seed=2, stop_token_ids=(104,)))
        assert completion.token_ids == [90, 97, 104]
        assert completion.stop_reason == "stop"

    tell(processes, story)
    assert "stop_token_ids" not in processes[0].ask()["bodies"][0]


def test_a_stop_string_is_found_in_our_own_text_and_frees_the_server(servers, tokenizer):
    processes = servers(1)
    processes[0].set(seconds_per_token=0.02)

    async def story(engine: RemoteEngine) -> None:
        sampling = SamplingParams(max_new_tokens=400, seed=2)
        text = tokenizer.decode(TOKENS[:3])
        assert isinstance(text, str)
        stop = text[-2:]
        deltas = await all_of(engine.stream(GenerationRequest(PROMPT, replace_stop(sampling, stop))))
        assert "".join(delta.text for delta in deltas) == text[:-2]
        assert (deltas[-1].stop_reason, deltas[-1].stop) == ("stop", stop)
        assert sum(len(delta.token_ids) for delta in deltas) == 3
        await until(lambda: processes[0].ask()["num_running"] == 0)

    tell(processes, story, tokenizer=tokenizer)
    assert processes[0].ask()["num_cancelled"] == 1
    assert len(processes[0].ask()["bodies"][0]["stop"]) == 1, "the server is told as well"


def replace_stop(sampling: SamplingParams, stop: str) -> SamplingParams:
    return SamplingParams(max_new_tokens=sampling.max_new_tokens, seed=sampling.seed, stop=(stop,))


def test_its_own_time_ends_a_request_as_it_is(servers):
    processes = servers(1)
    processes[0].set(seconds_per_token=0.05)

    async def story(engine: RemoteEngine) -> None:
        request = GenerationRequest(PROMPT, SamplingParams(max_new_tokens=400, seed=2), timeout_seconds=0.5)
        deltas = await all_of(engine.stream(request))
        assert deltas[-1].stop_reason == "cancelled"
        assert 0 < sum(len(delta.token_ids) for delta in deltas) < 20
        await until(lambda: processes[0].ask()["num_running"] == 0)

    tell(processes, story)


@pytest.mark.parametrize("whole", [True, False])
def test_cancelling_frees_the_server(servers, whole):
    processes = servers(1)
    processes[0].set(seconds_per_token=0.05)

    async def story(engine: RemoteEngine) -> None:
        sampling = SamplingParams(max_new_tokens=400, seed=2)
        work = (
            engine.generate(PROMPT, sampling) if whole else all_of(engine.stream(GenerationRequest(PROMPT, sampling)))
        )
        task = asyncio.ensure_future(work)
        await until(lambda: processes[0].ask()["num_running"] == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: processes[0].ask()["num_cancelled"] == 1)
        assert engine.stats().num_running == 0

    tell(processes, story)


def test_counts_are_of_its_own_requests(servers):
    async def story(engine: RemoteEngine) -> None:
        await engine.generate(PROMPT, FIVE)
        await engine.generate(PROMPT, FIVE)
        stats = engine.stats()
        assert (stats.num_prompt_tokens, stats.num_cached_tokens, stats.num_generated_tokens) == (6, 6, 10)

    tell(servers(1), story)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (GenerationRequest((), FIVE), "empty"),
        (GenerationRequest(PROMPT, FIVE, adapter="x"), "no adapter named 'x'; loaded: none"),
        (GenerationRequest((1,) * 510, FIVE), "do not fit the servers' context of 512"),
        (GenerationRequest(PROMPT, SamplingParams(stop=("a",))), "tokenizer"),
        (GenerationRequest(PROMPT, SamplingParams(top_k=5)), "top_k=5"),
        (GenerationRequest(PROMPT, SamplingParams(temperature=0.7)), "logprob_kind='scaled'"),
        (GenerationRequest(PROMPT, FIVE, priority=3), "priority=3"),
        (GenerationRequest(PROMPT, FIVE, cache_salt="s"), "cache_salt='s'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_server_is_asked(servers, request_, words):
    processes = servers(1)

    async def story(engine: RemoteEngine) -> None:
        with pytest.raises(RequestError, match=words):
            await all_of(engine.stream(request_))

    tell(processes, story)
    assert processes[0].ask()["num_requests"] == 0


def test_a_closed_engine_refuses_and_closes_what_it_was_given(servers):
    processes = servers(1)
    from tests.engines.inference.remote.conftest import RecordedSync, ScriptedFleet

    fleet, sync = ScriptedFleet(processes), RecordedSync(processes)

    async def story(engine: RemoteEngine) -> None:
        await engine.close()
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await engine.generate(PROMPT, FIVE)

    tell(processes, story, fleet=fleet, sync=sync)
    assert fleet.num_closes == 1
    assert sync.calls == [("close", 0, [])]


def test_a_server_that_gives_text_alone_is_read_as_text(servers, tokenizer):
    processes = servers(1)
    processes[0].set(gives_token_ids=False)

    async def story(engine: RemoteEngine) -> None:
        sampling = SamplingParams(max_new_tokens=4, seed=2, logprob_kind="any", stop=("04",))
        for whole in (False, True):
            requests = engine._requests.draw(GenerationRequest(PROMPT, sampling), whole=whole)
            deltas = await all_of(requests)
            assert "".join(delta.text for delta in deltas).startswith(" ")
            assert deltas[-1].stop_reason in ("stop", "length")
        with pytest.raises(RequestError, match="text alone"):
            await engine.generate(PROMPT, FIVE)

    tell(processes, story, tokenizer=tokenizer, dialect=OpenAIDialect(tokenizer))
    assert isinstance(processes[0].ask()["bodies"][0]["prompt"], str)


def test_token_ids_are_missed_where_they_are_expected(servers):
    processes = servers(1)
    processes[0].set(gives_token_ids=False)

    async def story(engine: RemoteEngine) -> None:
        with pytest.raises(EngineError, match="without token ids"):
            await engine.generate(PROMPT, FIVE)

    tell(processes, story)


def test_an_adapter_is_loaded_on_all_servers_or_on_none(servers, tmp_path: Path):
    processes = servers(2)

    async def story(engine: RemoteEngine) -> None:
        await engine.load_adapter("a", tmp_path)
        assert engine.adapters == ("a",)
        with pytest.raises(RequestError, match="there is an adapter named 'a'"):
            await engine.load_adapter("a", tmp_path)
        await all_of(engine.stream(GenerationRequest(PROMPT, FIVE, adapter="a")))
        await engine.unload_adapter("a")
        with pytest.raises(RequestError, match="no adapter named 'a'"):
            await engine.unload_adapter("a")

    tell(processes, story)
    assert [one.ask()["calls"] for one in processes] == [["load a", "unload a"]] * 2
    assert {body["model"] for one in processes for body in one.ask()["bodies"]} == {"a"}
