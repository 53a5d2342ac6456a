"""What vLLM is asked, and what it is not asked because it would do it in another way."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest
from llmkit_vllm.dialect import VLLMDialect, open_dialect

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.engines.inference.remote.contract import Server
from llmkit.errors import EngineError, RequestError
from llmkit.types import SamplingParams, Structure

ANSWER = {
    "choices": [
        {
            "index": 0,
            "text": "ab",
            "token_ids": [7, 9],
            "logprobs": {
                "tokens": ["token_id:7", "token_id:9"],
                "token_logprobs": [-1.5, -2.0],
                "top_logprobs": [{"token_id:7": -1.5, "token_id:4": -0.5}, {"token_id:9": -2.0, "token_id:2": -0.1}],
            },
            "finish_reason": "stop",
            "stop_reason": 9,
            "prompt_logprobs": [None, {"6": {"logprob": -3.0, "rank": 5}, "4": {"logprob": -0.25, "rank": 1}}],
        }
    ],
    "usage": {"prompt_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
}


class RecordingLink:
    """Answers with what it was given."""

    def __init__(self, answer: Any = ANSWER) -> None:
        self.server = Server(0, "http://test", "m")
        self.answer = answer
        self.num_streams = 0
        self.sent: list[tuple[str, dict[str, Any]]] = []

    async def call(self, path: str, body: Any = None, *, kind: Any = Any, **others: Any) -> Any:
        self.sent.append((path, dict(body or others.get("params") or {})))
        return msgspec.json.decode(json.dumps(self.answer), type=kind)

    async def events(self, path: str, body: Any, *, kind: Any = Any, **others: Any) -> AsyncGenerator[Any]:
        self.sent.append((path, dict(body)))
        yield msgspec.json.decode(json.dumps(self.answer), type=kind)


def ask(request: GenerationRequest, link: Any = None, *, whole: bool = True) -> tuple[list[Delta], dict[str, Any]]:
    """The deltas, and what was sent."""
    link = link or RecordingLink()

    async def read() -> list[Delta]:
        stream = VLLMDialect().stream(link, request, 4, whole=whole, timeout_seconds=1)
        return [delta async for delta in stream]

    return asyncio.run(read()), link.sent[-1][1]


def test_an_answer_is_read_with_all_that_it_says():
    sampling = SamplingParams(num_top_logprobs=1, prompt_logprobs=True, logprob_kind="raw")
    (delta,), _ = ask(GenerationRequest([5, 6], sampling))
    assert (delta.token_ids, delta.versions, delta.stop_reason, delta.stop) == ([7, 9], [4, 4], "stop", 9)
    assert [(score.logprob, score.top) for score in delta.scores] == [(-1.5, ((4, -0.5),)), (-2.0, ((2, -0.1),))]
    assert delta.prompt_scores is not None
    assert [(score.logprob, score.top) for score in delta.prompt_scores] == [(None, ()), (-3.0, ((4, -0.25),))]
    assert delta.num_cached_tokens == 1


def test_everything_that_could_have_a_default_is_said():
    _, body = ask(GenerationRequest([5, 6], SamplingParams(stop_token_ids=(9,), seed=2**64 - 1)))
    assert body["ignore_eos"] is True
    assert body["stop_token_ids"] == [9]
    assert 0 <= body["seed"] < 2**63
    for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens", "min_tokens"):
        assert name in body, "or the model's generation_config.json decides"


def test_a_stream_is_asked_for_only_where_it_can_have_what_is_wanted():
    plain, scored = SamplingParams(), SamplingParams(prompt_logprobs=True)
    assert [ask(GenerationRequest([5], one), whole=False)[1]["stream"] for one in (plain, scored)] == [True, False]


def test_many_streams_come_in_larger_pieces():
    link = RecordingLink()
    for num_streams, together in ((0, 1), (7, 1), (15, 2), (32, 5), (1000, 8)):
        link.num_streams = num_streams
        assert ask(GenerationRequest([5], SamplingParams()), link, whole=False)[1]["stream_interval"] == together


def test_logprobs_that_nobody_looks_at_are_not_asked_for():
    answer = json.loads(json.dumps(ANSWER))
    answer["choices"][0]["logprobs"] = None
    (delta,), body = ask(GenerationRequest([5], SamplingParams(logprob_kind="any")), RecordingLink(answer))
    assert "logprobs" not in body
    assert [score.logprob for score in delta.scores] == [None, None]
    with pytest.raises(EngineError, match="2 tokens came with 0 logprobs"):
        ask(GenerationRequest([5], SamplingParams()), RecordingLink(answer))


def test_several_greedy_completions_are_several_prompts():
    _, body = ask(GenerationRequest([5, 6], SamplingParams(temperature=0.0), num_completions=3))
    assert (body["n"], body["prompt"]) == (1, [[5, 6]] * 3)
    _, body = ask(GenerationRequest([5, 6], SamplingParams(), num_completions=3))
    assert (body["n"], body["prompt"]) == (3, [5, 6])


def test_stop_tokens_can_be_drawn_where_only_some_tokens_are_allowed():
    _, body = ask(GenerationRequest([5], SamplingParams(allowed_token_ids=(3, 1), stop_token_ids=(2,))))
    assert body["allowed_token_ids"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("structure", "wanted"),
    [
        (Structure("json"), {"json": {}}),
        (Structure("json_schema", '{"type": "string"}'), {"json": {"type": "string"}}),
        (Structure("regex", "a+"), {"regex": "a+"}),
        (Structure("grammar", 'root ::= "a"'), {"grammar": 'root ::= "a"'}),
        (Structure("choice", '["a", "b"]'), {"choice": ["a", "b"]}),
    ],
)
def test_structures_end_with_the_models_own_end_token(structure, wanted):
    _, body = ask(GenerationRequest([5], SamplingParams(structure=structure)))
    assert body["structured_outputs"] == wanted
    assert body["ignore_eos"] is False


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"banned_token_ids": (3,)}, "banned_token_ids"),
        ({"temperature": 0.001}, "would draw with 0.01"),
        ({"temperature": 3.0}, "takes 0 to 2"),
        ({"presence_penalty": 3.0}, "takes -2 to 2"),
        ({"logit_bias": ((1, 101.0),)}, "from -100"),
        ({"logit_bias": ((1, 1.0),), "repetition_penalty": 1.1}, "before it penalises"),
        ({"min_p": 0.1, "top_p": 0.9}, "before top_p"),
        ({"min_new_tokens": 2, "structure": Structure("json")}, "structure's end"),
        ({"temperature": 0.5}, "processed_logprobs"),
    ],
)
def test_what_it_would_do_in_another_way_is_refused(sampling, words):
    with pytest.raises(RequestError, match=words):
        VLLMDialect().check(GenerationRequest([5], SamplingParams(**sampling)))


def test_a_server_with_processed_logprobs_has_those_of_every_temperature():
    open_dialect("processed").check(GenerationRequest([5], SamplingParams(temperature=0.5)))


def test_a_completion_that_failed_is_an_error():
    broken = json.loads(json.dumps(ANSWER))
    broken["choices"][0]["finish_reason"] = "error"
    with pytest.raises(EngineError, match="'error'"):
        ask(GenerationRequest([5], SamplingParams()), RecordingLink(broken))


def test_a_cache_that_was_not_dropped_is_an_error():
    dialect = VLLMDialect()
    asyncio.run(dialect.drop_caches(RecordingLink({"success": True})))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="could not"):
        asyncio.run(dialect.drop_caches(RecordingLink({"success": False})))  # type: ignore[arg-type]
