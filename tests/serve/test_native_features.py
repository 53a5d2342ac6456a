"""What clients ask of a server, answered by the native engine with a random model."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import torch
from tests.engines.inference.native.tiny import save_adapter
from tests.serve.conftest import Server, running
from transformers import AutoModelForCausalLM

from llmkit.config.resolve import resolve
from llmkit.config.schema import ModelConfig
from llmkit.config.serving import ServeRun
from llmkit.engines.inference.native.runner import BLOCK_SIZE
from llmkit.models.loading import checkpoint_path
from llmkit.serve.assembly import open_service
from llmkit.serve.context import Context
from llmkit.serve.endpoints.generate import generate
from llmkit.serve.schemas.native import GenerateAnswer, GenerateRequest, GenerateSampling

TEXT = "Carla has 5 boxes with 12 pens each. How many pens does she have?"
TEMPLATE = """\
{%- if tools -%}{{ tools | tojson }}\n{%- endif -%}
{%- for message in messages -%}<|im_start|>{{ message.role }}\\n{{ message.content }}<|im_end|>\\n{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant\\n{% if enable_thinking is false %}[]{% endif %}{%- endif -%}"""
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome"]},
        "days": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
        "place": {"$ref": "#/$defs/place"},
    },
    "required": ["city", "days", "place"],
    "$defs": {"place": {"type": "object", "properties": {"x": {"const": 1}, "y": {"type": "null"}}, "required": ["x"]}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock"}},
]


@pytest.fixture(scope="module")
def directory() -> str:
    return checkpoint_path(ModelConfig(path="builtin:tiny-untrained"))


@pytest.fixture(scope="module")
def model(directory: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory, directory: str) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("native-features")
    (place / "template.jinja").write_text(TEMPLATE)
    options = ["--model", directory, "--served-name", "tiny", "--threads", 1, "--dtype", "float32"]
    options += ["--chat-template", place / "template.jinja", "--set", "server.allow_adapter_loading=true"]
    with running(place, options) as started:
        yield started


def complete(server: Server, **body: Any) -> Any:
    """An answer of `/v1/completions`."""
    status, _, answer = server.call("/v1/completions", {"model": "tiny", "prompt": TEXT, **body}, key=None)
    assert status == 200, answer
    return answer


def chat(server: Server, **body: Any) -> Any:
    """An answer of `/v1/chat/completions`."""
    messages = [{"role": "user", "content": "Hi"}]
    status, _, answer = server.call("/v1/chat/completions", {"model": "tiny", "messages": messages, **body}, key=None)
    assert status == 200, answer
    return answer


def letters(server: Server) -> list[int]:
    """Tokens of plain text: a random model that may draw these alone writes whole characters."""
    return sorted(set(server.call("/tokenize", {"prompt": TEXT}, key=None)[2]["tokens"]))


def stream(server: Server, body: Any) -> Any:
    """An open stream of `/v1/completions`."""
    data = json.dumps({"model": "tiny", "prompt": TEXT, "stream": True, **body}).encode()
    request = urllib.request.Request(server.url + "/v1/completions", data, {"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=60)


def events(response: Any) -> list[Any]:
    """The choices of a stream's chunks."""
    lines = [line.removeprefix("data: ") for line in response.read().decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [choice for line in lines for choice in json.loads(line)["choices"]]


def scores_of(model: Any, token_ids: list[int]) -> list[float]:
    """Log-probability of each token after the first, by Hugging Face."""
    with torch.no_grad():
        scores = model(torch.tensor([token_ids])).logits[0, :-1].log_softmax(-1)
    return scores.gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0].tolist()


def test_streams_go_token_by_token(native):
    body = {"max_tokens": 12, "seed": 3, "allowed_token_ids": letters(native), "ignore_eos": True}
    body["return_token_ids"] = True
    chunks = events(stream(native, body))
    assert [len(chunk["token_ids"]) for chunk in chunks if chunk["token_ids"]] == [1] * 12
    whole = complete(native, **body)["choices"][0]
    assert [token for chunk in chunks for token in chunk["token_ids"]] == whole["token_ids"]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"]


def test_echoed_logprobs_are_those_of_hugging_face(native, model):
    answer = complete(native, max_tokens=4, echo=True, logprobs=3, return_token_ids=True, temperature=0.5, seed=1)
    (choice,) = answer["choices"]
    lists = choice["logprobs"]
    assert lists["token_logprobs"][0] is None
    ids = choice["prompt_token_ids"] + choice["token_ids"]
    torch.testing.assert_close(lists["token_logprobs"][1:], scores_of(model, ids), atol=2e-4, rtol=0)
    assert [len(text) for text in lists["tokens"][:-4]] == [
        after - before for before, after in zip(lists["text_offset"], lists["text_offset"][1:-3], strict=False)
    ]


def test_prompts_alone_can_be_scored(native, model):
    (choice,) = complete(native, max_tokens=0, echo=True, logprobs=1, return_token_ids=True)["choices"]
    assert choice["text"] == TEXT
    scores = choice["logprobs"]["token_logprobs"][1:]
    torch.testing.assert_close(scores, scores_of(model, choice["prompt_token_ids"]), atol=2e-4, rtol=0)


def test_the_likeliest_tokens_are_in_order(native):
    answer = chat(native, max_tokens=5, logprobs=True, top_logprobs=4, temperature=0)
    for token in answer["choices"][0]["logprobs"]["content"]:
        top = [one["logprob"] for one in token["top_logprobs"]]
        assert (len(top), top, top[0]) == (4, sorted(top, reverse=True), token["logprob"])


def test_frequency_penalties_even_out_two_tokens(native):
    two = letters(native)[:2]
    body = {"max_tokens": 10, "temperature": 0, "allowed_token_ids": two, "ignore_eos": True, "return_token_ids": True}
    plain, even = (complete(native, **body, **penalty) for penalty in ({}, {"frequency_penalty": 2}))
    counts = [sorted(map(answer["choices"][0]["token_ids"].count, two)) for answer in (plain, even)]
    assert counts[1] == [5, 5] != counts[0]


def test_completions_of_one_request_draw_with_seeds_of_their_own(native):
    body = {"max_tokens": 6, "return_token_ids": True, "ignore_eos": True}
    three = [choice["token_ids"] for choice in complete(native, n=3, seed=5, **body)["choices"]]
    alone = [complete(native, seed=seed, **body)["choices"][0]["token_ids"] for seed in (5, 6, 7)]
    assert three == alone
    assert three[0] != three[1]


def test_a_stop_string_across_tokens_ends_a_stream(native):
    body = {"max_tokens": 40, "seed": 11, "allowed_token_ids": letters(native), "ignore_eos": True, "logprobs": 0}
    whole = complete(native, **body)["choices"][0]
    pieces = whole["logprobs"]["tokens"]
    stop = pieces[20][-1] + pieces[21][0]
    ended = events(stream(native, {**body, "stop": [stop]}))
    assert "".join(chunk["text"] for chunk in ended) == whole["text"].partition(stop)[0]
    assert (ended[-1]["finish_reason"], ended[-1]["stop_reason"]) == ("stop", stop)


def test_answers_fit_their_schema_and_end(native):
    schema = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
    for choice in chat(native, n=8, seed=0, max_tokens=400, response_format=schema)["choices"]:
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


def test_json_mode_gives_objects(native):
    answer = chat(native, n=16, seed=0, max_tokens=300, response_format={"type": "json_object"})
    ended = [choice["message"]["content"] for choice in answer["choices"] if choice["finish_reason"] == "stop"]
    assert ended
    assert all(isinstance(json.loads(text), dict) for text in ended)


@pytest.mark.parametrize("named", [None, "weather", "clock"])
@pytest.mark.parametrize("parallel", [True, False])
def test_forced_calls_can_always_be_read(native, named, parallel):
    choice = "required" if named is None else {"type": "function", "function": {"name": named}}
    body = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": parallel}
    for answer in chat(native, n=6, seed=0, max_tokens=1200, **body)["choices"]:
        assert answer["finish_reason"] != "length"
        calls = [call["function"] for call in answer["message"]["tool_calls"]]
        assert 1 <= len(calls) <= (16 if parallel and named is None else 1)
        for call in calls:
            assert call["name"] in ((named,) if named else ("weather", "clock"))
            jsonschema.validate(
                json.loads(call["arguments"]), SCHEMA if call["name"] == "weather" else {"maxProperties": 0}
            )


def test_a_prompt_that_comes_again_is_cached_for_its_own_salt_alone(native):
    prompt = "Some pens are red. " * 12

    def cached(salt: str) -> int:
        usage = complete(native, prompt=prompt, max_tokens=1, cache_salt=salt)["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert cached("mine") == 0
    size = len(native.call("/tokenize", {"prompt": prompt}, key=None)[2]["tokens"])
    assert cached("mine") == (size - 1) // BLOCK_SIZE * BLOCK_SIZE > 0
    assert cached("theirs") == 0


def test_what_the_chat_template_reads_comes_with_the_request(native):
    def prompt(**body: Any) -> str:
        messages = [{"role": "user", "content": "Hi"}]
        ids = native.call("/tokenize", {"messages": messages, **body}, key=None)[2]["tokens"]
        return native.call("/detokenize", {"tokens": ids}, key=None)[2]["prompt"]

    plain = prompt()
    assert prompt(chat_template_kwargs={"enable_thinking": False}) == plain + "[]"
    assert prompt(chat_template_kwargs={"enable_thinking": True}) == plain
    usages = [chat(native, max_tokens=1, **body)["usage"]["prompt_tokens"] for body in THINKING]
    assert usages[1] > usages[0]
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": {"tools": []}}
    status, _, answer = native.call("/v1/chat/completions", body, key=None)
    assert (status, answer["error"]["param"]) == (400, "chat_template_kwargs")


THINKING: list[dict[str, Any]] = [{}, {"chat_template_kwargs": {"enable_thinking": False}}]


def test_adapters_come_and_go_while_requests_run(native, model, tmp_path):
    merged = save_adapter(model, tmp_path / "poet", seed=0, target_modules=["q_proj", "v_proj", "down_proj"])
    loading = {"lora_name": "poet", "lora_path": str(tmp_path / "poet")}
    assert native.call("/v1/load_lora_adapter", loading, key=None)[0] == 200
    body = {"max_tokens": 3, "echo": True, "logprobs": 0, "return_token_ids": True}
    for name, alone in (("poet", merged), ("tiny", model)):
        (choice,) = complete(native, model=name, **body)["choices"]
        ids = choice["prompt_token_ids"] + choice["token_ids"]
        torch.testing.assert_close(choice["logprobs"]["token_logprobs"][1:], scores_of(alone, ids), atol=2e-4, rtol=0)
    assert native.call("/v1/load_lora_adapter", loading, key=None)[0] == 400
    with stream(native, {"model": "poet", "max_tokens": 300, "ignore_eos": True, "return_token_ids": True}) as reading:
        reading.read(1)
        unloading = threading.Thread(
            target=native.call, args=("/v1/unload_lora_adapter", {"lora_name": "poet"}), kwargs={"key": None}
        )
        unloading.start()
        ended = reading.read().decode()
    unloading.join()
    assert '"finish_reason":"length"' in ended
    assert native.call("/v1/completions", {"model": "poet", "prompt": "Hi"}, key=None)[0] == 404


def test_a_client_that_goes_away_frees_its_blocks(native):
    reading = stream(native, {"max_tokens": 1900, "n": 4, "ignore_eos": True})
    reading.read(1)
    assert native.metric("llmkit_kv_cache_use") > 0
    reading.close()
    native.wait_for("llmkit_requests_running", 0)
    native.wait_for("llmkit_kv_cache_use", 0)
    assert native.metric("llmkit_generation_tokens_total") < 4 * 1900


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example.com:8000", 403),
        ("127.0.0.1.evil.example.com", 403),
        ("localhost@evil.example.com", 403),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("app.localhost:8000", 200),
        ("[::1]:8000", 200),
        ("127.0.0.1", 200),
    ],
)
def test_pages_that_point_their_name_at_this_machine_are_refused(native, host, status):
    given, _, answer = native.call("/v1/models", key=None, headers={"host": host})
    assert given == status, answer
    assert native.call("/health", key=None, headers={"host": host})[0] == 200


def test_tokens_say_which_weights_drew_them(directory):
    run = resolve(ServeRun, command="serve", overrides=[f"model.path={directory}", "device.threads=1"], environ={}).run

    async def drawn() -> list[list[int]]:
        service = await open_service(run)
        try:
            versions: list[list[int]] = []
            for version in (0, 3):
                if version:
                    await service.engine.load_weights(version)
                sampling = GenerateSampling(max_new_tokens=2, stop_token_ids=[])
                answer = await generate(Context(service, "r", "openai"), GenerateRequest(text="Hi", sampling=sampling))
                assert isinstance(answer, GenerateAnswer)
                assert answer.version == version
                versions.append(answer.completions[0].versions)
            return versions
        finally:
            await service.close()

    assert asyncio.run(drawn()) == [[0, 0], [3, 3]]
