"""What vLLM's servers are told, and what their answers mean."""

import asyncio
import json
from typing import Any

import pytest
import torch
from llmkit_vllm.weights import VLLMReceiver

from llmkit.engines.inference.remote.contract import Server
from llmkit.engines.inference.weight_sync.contract import Parcel, Update
from llmkit.errors import EngineError, RequestError

UPDATE = Update("key-1", 7, 30.0, names=["a", "b"])
PARCEL = Parcel(["a"], {"a": "0" * 16}, {"kind": "file", "path": "/dev/shm/x"})


class ScriptedLink:
    """Answers with what it was given, in turn, and keeps what it was asked."""

    server = Server(0, "http://127.0.0.1:8000", "m")

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Any, float | None]] = []

    async def call(self, path: str, body: Any = None, *, timeout_seconds: float | None = None, **_: Any) -> Any:
        self.asked.append((path, body, timeout_seconds))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def scripted(*answers: Any) -> Any:
    """A link of which no more is used than it has."""
    return ScriptedLink(*answers)


def test_a_message_is_one_text_and_has_the_phases_deadline():
    link = scripted({"results": [{"fingerprints": {"a": "0" * 16}}]})
    read = asyncio.run(VLLMReceiver().put(link, UPDATE, PARCEL))
    assert list(read) == [{"a": "0" * 16}]
    [(path, body, seconds)] = link.asked
    assert (path, body["method"], body["timeout"]) == ("/collective_rpc", "llmkit_put", 30.0)
    assert seconds is not None
    assert seconds > 30.0
    assert [json.loads(text) for text in body["args"]] == [
        {"kind": "file", "path": "/dev/shm/x", "key": "key-1", "fingerprints": True}
    ]


def test_a_commit_names_all_tensors_and_the_version_is_stamped():
    link = scripted({"results": [{"renewed": 4}]}, {"success": True})
    asyncio.run(VLLMReceiver().commit(link, UPDATE))
    asyncio.run(VLLMReceiver().stamp(link, 7, 5.0))
    assert json.loads(link.asked[0][1]["args"][0])["names"] == ["a", "b"]
    assert link.asked[1][:2] == ("/update_weight_version", {"new_version": "7"})


def test_workers_tell_their_type_and_their_number():
    link = scripted({"results": [{"dtype": "bfloat16", "device": "cpu", "rank": rank} for rank in (0, 1)]})
    facts = asyncio.run(VLLMReceiver().facts(link, 5.0))
    assert (facts.dtype, facts.num_workers, facts.device) == (torch.bfloat16, 2, "cpu")


def test_one_workers_error_is_the_servers():
    link = scripted({"results": [{}, {"error": "worker 1: KeyError: 'lm_head.weight'"}]})
    with pytest.raises(EngineError, match=r"beginning a weight update: server 0 .*: worker 1: KeyError: 'lm_head"):
        asyncio.run(VLLMReceiver().begin(link, UPDATE))


@pytest.mark.parametrize("answer", [None, "", {"results": []}, {"results": [None]}])
def test_an_answer_that_is_none_is_an_error(answer):
    with pytest.raises(EngineError, match="it answered"):
        asyncio.run(VLLMReceiver().begin(scripted(answer), UPDATE))


def test_a_server_without_the_extension_is_told_how_to_start_it():
    link = scripted(RequestError("http://127.0.0.1:8000: beginning a weight update: Not Found"))
    with pytest.raises(EngineError, match=r"Not Found\. A server that takes weights is started with VLLM_SERVER_DEV"):
        asyncio.run(VLLMReceiver().begin(link, UPDATE))
