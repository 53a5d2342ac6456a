"""The official Anthropic client against a server of ours."""

from collections.abc import Iterator

import anthropic
import pytest
from tests.serve.conftest import KEY, MODEL, TEXTS, Server

USER = [{"role": "user", "content": "Hi"}]
WEATHER = {
    "name": "weather",
    "description": "What the weather is.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CLOCK = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0, timeout=30) as made:
        yield made


@pytest.fixture
def script(server: Server) -> None:
    """The next answer is the first of the script: the API has no seed to choose one with."""
    body = {"text": "x", "sampling": {"max_new_tokens": 2}}
    for _ in TEXTS:
        if TEXTS[-1].startswith(server.call("/generate", body)[2]["completions"][0]["text"]):
            return


def skip(server: Server, count: int) -> None:
    for _ in range(count):
        server.call("/generate", {"text": "x", "sampling": {"max_new_tokens": 1}})


def test_a_message(client, script):
    answer = client.messages.create(model=MODEL, max_tokens=50, messages=USER, system="Be kind.")
    assert answer.content[0].text == "Hello there, world!"
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 0
    counted = client.messages.count_tokens(model=MODEL, messages=USER, system="Be kind.")
    assert counted.input_tokens == answer.usage.input_tokens


def test_a_stream_of_thoughts_and_text(client, server, script):
    skip(server, 1)
    with client.messages.stream(model=MODEL, max_tokens=99, messages=USER) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_message()
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking == "Two and two.\n"
    assert answer.content[1].text == "It is 4."
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert answer.usage.output_tokens > 0


def test_tools_and_their_results(client, server, script):
    skip(server, 2)
    answer = client.messages.create(model=MODEL, max_tokens=200, messages=USER, tools=[WEATHER, CLOCK])
    assert answer.stop_reason == "tool_use"
    assert [block.type for block in answer.content] == ["text", "tool_use", "tool_use"]
    assert (answer.content[1].name, answer.content[1].input) == ("weather", {"city": "Rom"})
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "sunny"}]}
        for block in answer.content[1:]
    ]
    turns = [*USER, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    forced = client.messages.create(
        model=MODEL, max_tokens=200, messages=turns, tools=[WEATHER, CLOCK], tool_choice={"type": "any"}
    )
    assert (forced.content[0].name, forced.content[0].input) == ("weather", {"city": "Oslo"})
    named = client.messages.create(
        model=MODEL, max_tokens=200, messages=turns, tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"}
    )
    assert named.content[0].input == {"city": "Oslo"}


def test_tools_stream(client, server, script):
    skip(server, 2)
    with client.messages.stream(model=MODEL, max_tokens=200, messages=USER, tools=[WEATHER, CLOCK]) as stream:
        answer = stream.get_final_message()
    assert [block.type for block in answer.content] == ["text", "tool_use", "tool_use"]
    assert answer.content[1].input == {"city": "Rom"}
    assert answer.stop_reason == "tool_use"


def test_stop_sequences_and_limits(client, script):
    stopped = client.messages.create(model=MODEL, max_tokens=50, messages=USER, stop_sequences=[", w"])
    assert stopped.content[0].text == "Hello there"
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", ", w")
    assert client.messages.create(model=MODEL, max_tokens=2, messages=USER).stop_reason == "max_tokens"


def test_an_answer_that_has_begun_goes_on(client):
    plain = client.messages.count_tokens(model=MODEL, messages=USER).input_tokens
    begun = client.messages.count_tokens(model=MODEL, messages=[*USER, {"role": "assistant", "content": "Well"}])
    assert begun.input_tokens > plain


def test_models(client):
    assert [model.id for model in client.models.list()] == [MODEL, "also"]


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (anthropic.NotFoundError, {"model": "claude"}),
        (anthropic.BadRequestError, {"max_tokens": 0}),
        (anthropic.BadRequestError, {"max_tokens": 10**6}),
        (anthropic.BadRequestError, {"extra_body": {"temperature": 1.5}}),
        (anthropic.BadRequestError, {"messages": []}),
        (anthropic.BadRequestError, {"extra_body": {"no_such_field": 1}}),
        (anthropic.BadRequestError, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        (anthropic.BadRequestError, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
    ],
)
def test_what_makes_no_sense_is_refused_in_its_shape(client, error, options):
    with pytest.raises(error) as caught:
        client.messages.create(**{"model": MODEL, "max_tokens": 5, "messages": USER, **options})
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["message"]


def test_a_wrong_key(server):
    client = anthropic.Anthropic(base_url=server.url, api_key="sk-wrong", max_retries=0)
    with client as stranger, pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model=MODEL, max_tokens=5, messages=USER)
