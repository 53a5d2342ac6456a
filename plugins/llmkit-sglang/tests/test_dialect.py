"""What SGLang is asked, and how its answers are read."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest
from llmkit_sglang.dialect import SGLangDialect, open_dialect

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.engines.inference.remote.contract import Server
from llmkit.errors import EngineError, RequestError
from llmkit.types import SamplingParams, Structure


class RecordingLink:
    """Answers with what it was given; with all of it, one after another, as events."""

    def __init__(self, *answers: Any) -> None:
        self.server = Server(0, "http://test", "m")
        self.answers = answers
        self.sent: list[tuple[str, dict[str, Any]]] = []

    async def call(self, path: str, body: Any = None, *, kind: Any = Any, **others: Any) -> Any:
        self.sent.append((path, dict(body or {})))
        if isinstance(self.answers[0], Exception):
            raise self.answers[0]
        return msgspec.json.decode(json.dumps(self.answers[0]), type=kind)

    async def events(self, path: str, body: Any, *, kind: Any = Any, **others: Any) -> AsyncGenerator[Any]:
        self.sent.append((path, dict(body)))
        for answer in self.answers:
            yield msgspec.json.decode(json.dumps(answer), type=kind)


def output(ids: list[int], total: int, *, index: int = 0, finish: Any = None, **meta: Any) -> dict[str, Any]:
    """An answer, or an event, with some tokens."""
    scored = [[-token / 10, token, None] for token in ids]
    return {
        "text": "",
        "output_ids": ids,
        "index": index,
        "meta_info": {
            "completion_tokens": total,
            "output_token_logprobs": scored,
            "finish_reason": finish,
            "weight_version": "default",
            "cached_tokens": 2,
            **meta,
        },
    }


def ask(request: GenerationRequest, *answers: Any, whole: bool = False) -> tuple[list[Delta], dict[str, Any]]:
    """The deltas, and what was sent."""
    link: Any = RecordingLink(list(answers)) if whole else RecordingLink(*answers)

    async def read() -> list[Delta]:
        stream = SGLangDialect().stream(link, request, 4, whole=whole, timeout_seconds=1)
        return [delta async for delta in stream]

    return asyncio.run(read()), link.sent[-1][1]


ONE = GenerationRequest([5, 6], SamplingParams())
LENGTH = {"type": "length", "length": 3}


@pytest.mark.parametrize(
    "events",
    [
        [output([7], 1), output([7, 8], 2), output([7, 8, 9], 3, finish=LENGTH)],
        [output([7], 1), output([8], 2), output([9], 3, finish=LENGTH)],
    ],
    ids=["all so far", "what is new"],
)
def test_events_are_read_in_both_ways_of_streaming(events):
    deltas, _ = ask(ONE, *events)
    assert [delta.token_ids for delta in deltas] == [[7], [8], [9]]
    assert [delta.scores[0].logprob for delta in deltas] == [-0.7, -0.8, -0.9]
    assert [delta.stop_reason for delta in deltas] == [None, None, "length"]
    assert [delta.num_cached_tokens for delta in deltas] == [2, None, None]


def test_each_token_has_the_version_that_the_server_stamps():
    spans = [{"version": "1", "start": 0, "end": 2}, {"version": "2", "start": 2, "end": 3}]
    deltas, _ = ask(ONE, output([7], 1, weight_version="1"), output([7, 8, 9], 3, finish=LENGTH, weight_versions=spans))
    assert [delta.versions for delta in deltas] == [[1], [1, 2]]


def test_before_the_first_update_the_version_is_the_engines():
    deltas, _ = ask(ONE, output([7, 8, 9], 3, finish=LENGTH), whole=True)
    assert deltas[0].versions == [4, 4, 4]


def test_a_stop_is_told_with_what_matched():
    for matched in (9, "end"):
        deltas, _ = ask(ONE, output([7, 9], 2, finish={"type": "stop", "matched": matched}), whole=True)
        assert (deltas[0].stop_reason, deltas[0].stop) == ("stop", matched)
    deltas, _ = ask(ONE, output([7], 1, finish={"type": "abort", "message": "paused"}), whole=True)
    assert deltas[0].stop_reason == "cancelled"


def test_the_likeliest_and_the_prompts_are_read():
    sampling = SamplingParams(num_top_logprobs=2, prompt_logprobs=True, logprob_kind="raw")
    top = [[[-0.5, 3, None], [-0.1, 2, None]]]
    answer = output(
        [7], 1, finish=LENGTH, output_top_logprobs=top,
        input_token_logprobs=[[None, 5, None], [-3.0, 6, None]], input_top_logprobs=[None, *top],
    )  # fmt: skip
    (delta,), body = ask(GenerationRequest([5, 6], sampling), answer, whole=True)
    assert delta.scores[0].top == ((2, -0.1), (3, -0.5))
    assert delta.prompt_scores is not None
    assert [(score.logprob, score.top) for score in delta.prompt_scores] == [(None, ()), (-3.0, ((2, -0.1), (3, -0.5)))]
    assert (body["logprob_start_len"], body["top_logprobs_num"]) == (0, 2)


def test_each_completion_of_a_request_has_a_seed_of_its_own():
    request = GenerationRequest([5, 6], SamplingParams(seed=2**64 - 3), num_completions=3, adapter="a")
    _, body = ask(request, *[output([7], 1, index=index, finish=LENGTH) for index in range(3)])
    seeds = [one["sampling_seed"] for one in body["sampling_params"]]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2]
    assert seeds[-1] < 2**63
    assert body["input_ids"] == [[5, 6]] * 3
    assert body["lora_path"] == ["a"] * 3


def test_stop_tokens_count_which_ignore_eos_would_keep_from():
    for stops, ignores in (((), True), ((9,), False)):
        _, body = ask(GenerationRequest([5], SamplingParams(stop_token_ids=stops)), output([7], 1, finish=LENGTH))
        assert body["sampling_params"][0]["ignore_eos"] is ignores


@pytest.mark.parametrize(
    ("structure", "wanted"),
    [
        (Structure("json"), ("json_schema", "{}")),
        (Structure("json_schema", '{"type": "string"}'), ("json_schema", '{"type": "string"}')),
        (Structure("regex", "a+"), ("regex", "a+")),
        (Structure("grammar", 'root ::= "a"'), ("ebnf", 'root ::= "a"')),
        (Structure("choice", '["a", "b\\"c"]'), ("ebnf", 'root ::= "a" | "b\\"c"')),
    ],
)
def test_structures_in_its_words(structure, wanted):
    _, body = ask(GenerationRequest([5], SamplingParams(structure=structure)), output([7], 1, finish=LENGTH))
    name, text = wanted
    assert body["sampling_params"][0][name] == text


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"allowed_token_ids": (3,)}, "allowed_token_ids"),
        ({"repetition_penalty": 3.0}, "takes 1e-06 to 2"),
        ({"repetition_penalty": 1.5, "presence_penalty": 1.0, "logprob_kind": "any"}, "after the other penalties"),
        ({"min_new_tokens": 2, "structure": Structure("json"), "logprob_kind": "any"}, "structure's end"),
        ({"temperature": 0.5, "logprob_kind": "raw"}, "gives the scaled log-probabilities"),
        ({"top_k": 5, "logprob_kind": "processed"}, "gives the scaled log-probabilities"),
        ({"presence_penalty": 1.0}, "gives the processed log-probabilities"),
        ({"presence_penalty": 1.0, "top_k": 5, "logprob_kind": "processed"}, "gives none of them"),
    ],
)
def test_what_it_would_do_in_another_way_is_refused(sampling, words):
    with pytest.raises(RequestError, match=words):
        SGLangDialect().check(GenerationRequest([5], SamplingParams(**sampling)))


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.5},
        {"temperature": 0.5, "top_p": 0.9},
        {"temperature": 0.5, "presence_penalty": 1.0, "logprob_kind": "processed"},
        {"temperature": 0.0, "presence_penalty": 1.0, "logprob_kind": "any"},
    ],
)
def test_what_it_does_as_it_should_passes(sampling):
    SGLangDialect().check(GenerationRequest([5], SamplingParams(**sampling)))


def test_log_probabilities_from_before_temperature():
    dialect = open_dialect("raw")
    for fits in (
        {"temperature": 0.5, "logprob_kind": "raw"},
        {"temperature": 0.5, "top_p": 0.5, "logprob_kind": "raw"},
        {"presence_penalty": 1.0, "logprob_kind": "processed"},
        {},
    ):
        dialect.check(GenerationRequest([5], SamplingParams(**fits)))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"temperature": 0.5}, "gives the raw log-probabilities.*engine.logprobs=processed"),
        ({"temperature": 0.5, "presence_penalty": 1.0, "logprob_kind": "processed"}, "with a temperature"),
        ({"presence_penalty": 1.0, "logprob_kind": "raw"}, "gives the processed"),
    ]
    for differs, words in refused:
        with pytest.raises(RequestError, match=words):
            dialect.check(GenerationRequest([5], SamplingParams(**differs)))


def test_a_seed_without_effect_is_told_once(caplog):
    dialect = open_dialect("scaled")
    with caplog.at_level(logging.WARNING, "llmkit.engines"):
        for seed in (1, 2):
            dialect.check(GenerationRequest([5], SamplingParams(seed=seed)))
        SGLangDialect(repeats_seeds=True).check(GenerationRequest([5], SamplingParams(seed=1)))
    assert [record.message.partition(":")[0] for record in caplog.records] == ["seed has no effect"]


def test_a_cache_that_was_not_dropped_is_an_error():
    link: Any = RecordingLink(RequestError("http://test: dropping: Flush cache failed."))
    with pytest.raises(EngineError, match="requests hold a part of the cache"):
        asyncio.run(SGLangDialect().drop_caches(link))


def test_pausing_in_its_modes():
    link: Any = RecordingLink({})
    asyncio.run(SGLangDialect().pause(link, "abort"))
    asyncio.run(SGLangDialect().pause(link, "keep"))
    assert [body["mode"] for _, body in link.sent] == ["abort", "in_place"]
    with pytest.raises(RequestError, match="no mode that waits"):
        asyncio.run(SGLangDialect().pause(link, "wait"))
