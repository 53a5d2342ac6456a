"""The official OpenAI client against a server of ours."""

import json
from collections.abc import Iterator

import openai
import pytest
from tests.serve.conftest import CALLING, CHARACTERS, FORCED, HELLO, KEY, LONG, MODEL, OBJECT, THINKING, Server

USER = [{"role": "user", "content": "Hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=30) as made:
        yield made


def chat(client, seed, **options):
    return client.chat.completions.create(model=MODEL, messages=USER, seed=seed, **options)


def test_models(client):
    assert [model.id for model in client.models.list()] == [MODEL, "also"]
    assert client.models.retrieve("also").id == "also"


def test_a_chat(client):
    answer = chat(client, HELLO)
    assert answer.choices[0].message.content == "Hello there, world!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_the_same_and_counts_when_asked(client):
    whole = chat(client, CHARACTERS)
    chunks = list(chat(client, CHARACTERS, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Grüße aus 東京 🙂"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert not any("�" in (chunk.choices[0].delta.content or "") for chunk in chunks if chunk.choices)
    assert all(chunk.usage is None for chunk in chat(client, HELLO, stream=True))


def test_several_answers(client):
    answer = chat(client, HELLO, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content == "Hello there, world!"
    assert answer.choices[1].message.content == "It is 4."
    texts = ["", ""]
    for chunk in chat(client, HELLO, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["Hello there, world!", "It is 4."]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_across_tokens(client, stream):
    answer = chat(client, HELLO, stop=["re, w"], stream=stream)
    if stream:
        chunks = list(answer)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello the"
        assert chunks[-1].choices[0].finish_reason == "stop"
        return
    assert answer.choices[0].message.content == "Hello the"
    assert answer.choices[0].model_extra["stop_reason"] == "re, w"


def test_a_limit(client):
    answer = chat(client, LONG, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_logprobs(client):
    answer = chat(client, CHARACTERS, logprobs=True, top_logprobs=1)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    assert b"".join(bytes(one.bytes) for one in content).decode() == "Grüße aus 東京 🙂"
    assert all(one.logprob == 0 and one.top_logprobs[0].token == one.token for one in content)
    chunks = list(chat(client, CHARACTERS, logprobs=True, stream=True))
    streamed = [one for chunk in chunks if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
    assert [one.token for one in streamed] == [one.token for one in content]


def test_token_ids_in_and_out(client):
    answer = chat(client, HELLO, extra_body={"return_token_ids": True})
    assert len(answer.choices[0].model_extra["token_ids"]) == answer.usage.completion_tokens
    assert len(answer.model_extra["prompt_token_ids"]) == answer.usage.prompt_tokens
    prompt = answer.model_extra["prompt_token_ids"]
    text = client.completions.create(model=MODEL, prompt=prompt, seed=HELLO, max_tokens=50)
    assert text.choices[0].text == "Hello there, world!"
    assert text.usage.prompt_tokens == len(prompt)


def test_thoughts_are_apart_from_the_answer(client):
    answer = chat(client, THINKING).choices[0].message
    assert answer.content == "It is 4."
    assert answer.model_extra["reasoning_content"] == "Two and two.\n"
    pieces = [chunk.choices[0].delta for chunk in chat(client, THINKING, stream=True)]
    assert "".join(piece.content or "" for piece in pieces) == "It is 4."
    assert "".join((piece.model_extra or {}).get("reasoning_content") or "" for piece in pieces) == "Two and two.\n"


def test_tools_that_the_model_may_call(client):
    choice = chat(client, CALLING, tools=[WEATHER, CLOCK]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    calls = choice.message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("weather", {"city": "Rom"}),
        ("clock", {}),
    ]
    assert len({call.id for call in calls}) == 2
    follow_up = [
        *USER,
        choice.message.model_dump(),
        *({"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls),
    ]
    answer = client.chat.completions.create(model=MODEL, messages=follow_up, seed=HELLO, tools=[WEATHER, CLOCK])
    assert answer.choices[0].message.content == "Hello there, world!"


def test_calls_stream_as_deltas(client):
    calls: dict[int, list[str]] = {}
    chunks = list(chat(client, CALLING, tools=[WEATHER, CLOCK], stream=True))
    for delta in (chunk.choices[0].delta for chunk in chunks):
        for call in delta.tool_calls or []:
            name, arguments = calls.setdefault(call.index, ["", ""])
            calls[call.index] = [name + (call.function.name or ""), arguments + (call.function.arguments or "")]
    assert calls == {0: ["weather", '{"city": "Rom"}'], 1: ["clock", "{}"]}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    pieces = [c.function.arguments for k in chunks for c in k.choices[0].delta.tool_calls or [] if c.index == 0]
    assert len(pieces) > 3, "arguments come while they are written"


def test_one_call_when_parallel_ones_are_not_wanted(client):
    choice = chat(client, CALLING, tools=[WEATHER, CLOCK], parallel_tool_calls=False).choices[0]
    assert [call.function.name for call in choice.message.tool_calls] == ["weather"]


def test_a_call_that_is_required(client):
    choice = chat(client, FORCED, tools=[WEATHER, CLOCK], tool_choice="required").choices[0]
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    assert choice.message.content is None


def test_a_tool_that_is_named(client):
    named = {"type": "function", "function": {"name": "weather"}}
    choice = chat(client, OBJECT, tools=[WEATHER, CLOCK], tool_choice=named).choices[0]
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})


def test_no_tools_leaves_the_text_alone(client):
    choice = chat(client, CALLING, tools=[WEATHER], tool_choice="none").choices[0]
    assert choice.message.tool_calls is None
    assert "<tool_call>" in choice.message.content


def test_structured_output(client):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    formats = [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}},
    ]
    for response_format in formats:
        answer = chat(client, OBJECT, response_format=response_format)
        assert json.loads(answer.choices[0].message.content) == {"city": "Oslo"}
    with pytest.raises(openai.BadRequestError, match="does not fit"):
        chat(client, HELLO, response_format=formats[0])


def test_completions_and_their_logprobs(client):
    answer = client.completions.create(
        model=MODEL, prompt=["Once", "Twice"], seed=HELLO, max_tokens=4, logprobs=1, echo=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    choice = answer.choices[0]
    assert choice.text.startswith("OnceH")
    logprobs = choice.logprobs
    assert logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[1:] == [0.0] * (len(logprobs.tokens) - 1)
    assert "".join(logprobs.tokens) == choice.text
    assert [
        choice.text[start:][: len(token)] for start, token in zip(logprobs.text_offset, logprobs.tokens, strict=True)
    ] == (logprobs.tokens)
    only = client.completions.create(model=MODEL, prompt="Once", max_tokens=0, logprobs=1, echo=True)
    assert only.choices[0].text == "Once"
    assert only.usage.completion_tokens == 0


def test_completions_stream(client):
    chunks = list(client.completions.create(model=MODEL, prompt="Once", seed=HELLO, max_tokens=99, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello there, world!"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_client_that_leaves_a_stream_frees_its_place(client, server):
    stream = client.chat.completions.create(model=MODEL, messages=USER, seed=LONG, stream=True)
    next(iter(stream))
    server.wait_for("llmkit_requests_running", 1)
    stream.close()
    server.wait_for("llmkit_requests_running", 0)


def test_a_prompt_of_two_megabytes_is_told_to_be_too_long(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 400_000}])
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (openai.NotFoundError, {"model": "gpt-5"}),
        (openai.BadRequestError, {"temperature": 9}),
        (openai.BadRequestError, {"max_tokens": 0}),
        (openai.BadRequestError, {"max_tokens": 10**9}),
        (openai.BadRequestError, {"n": 9}),
        (openai.BadRequestError, {"stop": [""]}),
        (openai.BadRequestError, {"tool_choice": "required"}),
        (openai.BadRequestError, {"logit_bias": {"many": 1}}),
        (openai.BadRequestError, {"top_logprobs": 2}),
        (openai.BadRequestError, {"extra_body": {"no_such_field": 1}}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        (openai.BadRequestError, {"messages": [{"role": "wizard", "content": "x"}]}),
    ],
)
def test_what_makes_no_sense_is_refused(client, error, options):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": MODEL, "messages": USER, **options})
    assert caught.value.body["message"]
    assert caught.value.request_id


def test_completions_refuse_what_they_cannot_do(client):
    for options in ({"suffix": "end"}, {"best_of": 3}, {"prompt": [1, "x"]}, {"prompt": [[]]}, {"prompt": [10**6]}):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(**{"model": MODEL, "prompt": "x", **options})


def test_a_wrong_key(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-wrong", max_retries=0)
    with client as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
