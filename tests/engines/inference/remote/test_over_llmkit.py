"""Over `llmkit serve` the native engine gives what it gives in this process."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engines.inference.native.tiny import save_adapter
from tests.engines.inference.remote.conftest import all_of, ids_of
from tests.serve.conftest import running
from transformers import AutoModelForCausalLM

from llmkit import plugins
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.engines.inference.contract import Delta, EngineContext, GenerationRequest, ServingEngine
from llmkit.engines.inference.remote.llmkit_dialect import LLMKitDialect
from llmkit.engines.inference.remote.seeds import folded
from llmkit.errors import EngineError, RequestError
from llmkit.testing.tiny import tiny_codec, tiny_model
from llmkit.types import SamplingParams, Structure

PROMPT = tuple(range(1, 50))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("native")
    config = directory / "serve.yaml"
    settings = {"engine": {"name": "native"}, "model": {"path": tiny_model()}, "device": {"device": "cpu"}}
    config.write_text(json.dumps(settings | {"server": {"allow_adapter_loading": True}}))
    with running(directory, ["--config", config]) as server:
        yield server.url


def context() -> EngineContext:
    device = DeviceConfig.model_validate({"device": "cpu"})
    return EngineContext(ModelConfig(path=tiny_model()), device, tokenizer=tiny_codec().tokenizer)


def over_http(url: str) -> ServingEngine:
    front = plugins.load("engines", "openai")
    engine = front.build(front.Config.model_validate({"urls": [url]}), context())
    assert isinstance(engine._dialect, LLMKitDialect)
    return engine


def here() -> ServingEngine:
    front = plugins.load("engines", "native")
    return front.build(front.Config(), context())


def told(engine: ServingEngine, request: GenerationRequest) -> list[Delta]:
    async def story() -> list[Delta]:
        try:
            return await all_of(engine.stream(request))
        finally:
            await engine.close()

    return asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(max_new_tokens=12, seed=2**64 - 9),
        SamplingParams(max_new_tokens=12, seed=3, temperature=0.7, top_k=20, top_p=0.9, min_p=0.01, num_top_logprobs=2),
        SamplingParams(max_new_tokens=12, seed=4, prompt_logprobs=True, logprob_kind="raw", temperature=0.5),
        SamplingParams(max_new_tokens=12, seed=5, repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.1),
        SamplingParams(max_new_tokens=12, seed=6, logit_bias=((5, 3.0),), banned_token_ids=(7,), min_new_tokens=4),
        SamplingParams(max_new_tokens=12, seed=7, allowed_token_ids=(40, 41, 42), logprob_kind="processed"),
        SamplingParams(max_new_tokens=12, seed=8, structure=Structure("choice", '["ab", "cd"]')),
        SamplingParams(max_new_tokens=12, seed=9, structure=Structure("regex", "[a-c]{3}")),
    ],
    ids=lambda sampling: f"seed {sampling.seed}",
)
def test_every_parameter_arrives(url, sampling):
    request = GenerationRequest(PROMPT, sampling, num_completions=2)
    # Seeds are folded on their way.
    local = GenerationRequest(PROMPT, replace_seed(sampling), num_completions=2)
    remote, native = told(over_http(url), request), told(here(), local)
    for index in range(2):
        ours, theirs = ([delta for delta in deltas if delta.index == index] for deltas in (remote, native))
        assert ids_of(ours) == ids_of(theirs)
        assert "".join(delta.text for delta in ours) == "".join(delta.text for delta in theirs)
        assert (ours[-1].stop_reason, ours[-1].stop) == (theirs[-1].stop_reason, theirs[-1].stop)
        for mine, own in zip(scores_of(ours), scores_of(theirs), strict=True):
            assert mine[0] == pytest.approx(own[0], abs=1e-4)
            assert [token for token, _ in mine[1]] == [token for token, _ in own[1]]
    prompts = [[score.logprob for score in deltas[0].prompt_scores or ()] for deltas in (first(remote), first(native))]
    assert prompts[0] == pytest.approx(prompts[1], abs=1e-4)
    assert len(prompts[0]) == (len(PROMPT) if sampling.prompt_logprobs else 0)


def replace_seed(sampling: SamplingParams) -> SamplingParams:
    return dataclasses.replace(sampling, seed=folded(sampling.seed or 0))


def first(deltas: list[Delta]) -> list[Delta]:
    return [delta for delta in deltas if delta.index == 0]


def scores_of(deltas: list[Delta]) -> list[tuple[float | None, tuple[tuple[int, float], ...]]]:
    return [(score.logprob, score.top) for delta in deltas for score in delta.scores]


def test_what_the_server_refuses_is_refused_with_its_reason(url):
    request = GenerationRequest(PROMPT, SamplingParams(structure=Structure("regex", "(")))
    with pytest.raises(RequestError, match=url):
        told(over_http(url), request)


def test_adapters_come_and_go(url, tmp_path):
    save_adapter(AutoModelForCausalLM.from_pretrained(tiny_model()), tmp_path, seed=1)

    async def story() -> None:
        engine = over_http(url)
        try:
            await engine.load_adapter("poet", tmp_path)
            assert engine.adapters == ("poet",)
            sampling = SamplingParams(max_new_tokens=8, temperature=0.0)
            drawn = [
                scores_of(await all_of(engine.stream(GenerationRequest(PROMPT, sampling, adapter=adapter))))
                for adapter in ("poet", None)
            ]
            assert abs((drawn[0][0][0] or 0) - (drawn[1][0][0] or 0)) > 1e-4
            await engine.unload_adapter("poet")
            assert engine.adapters == ()
        finally:
            await engine.close()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_an_adapter_that_is_none_is_refused_and_not_remembered(url, tmp_path):
    async def story() -> None:
        engine = over_http(url)
        try:
            with pytest.raises(EngineError, match="poet"):
                await engine.load_adapter("poet", tmp_path / "nothing")
            assert engine.adapters == ()
        finally:
            await engine.close()

    asyncio.run(asyncio.wait_for(story(), 60))
