"""What SGLang's servers are told, and what their answers mean."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from llmkit_sglang.weights import SGLangReceiver
from safetensors.torch import save_file

from llmkit.engines.inference.remote.contract import Server
from llmkit.engines.inference.weight_sync.contract import Parcel, Update
from llmkit.engines.inference.weight_sync.fingerprints import fingerprint
from llmkit.errors import EngineError, RequestError

GROUP = {"backend": "gloo", "host": "127.0.0.1", "port": 5, "name": "g", "world_size": 3, "timeout_seconds": 30.0}


class ScriptedLink:
    """Answers with what it was given, in turn, and keeps what it was asked."""

    server = Server(0, "http://127.0.0.1:30000", "m")

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Any]] = []

    async def call(self, path: str, body: Any = None, **_: Any) -> Any:
        self.asked.append((path, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def scripted(*answers: Any) -> Any:
    """A link of which no more is used than it has."""
    return ScriptedLink(*answers)


def of_files(path: Path) -> Update:
    return Update("k", 7, 30.0, directory=path)


def of_a_group() -> Update:
    return Update("k", 7, 30.0)


def test_files_are_taken_in_one_go(tmp_path):
    link, receiver = scripted({"success": True}), SGLangReceiver()
    tensor = torch.randn(4, 3)
    save_file({"a": tensor}, tmp_path / "model.safetensors")
    parcel = Parcel(["a"], {"a": fingerprint(tensor)}, {"kind": "file", "path": str(tmp_path / "model.safetensors")})
    asyncio.run(receiver.begin(link, of_files(tmp_path)))
    assert list(asyncio.run(receiver.put(link, of_files(tmp_path), parcel))) == [parcel.fingerprints]
    assert link.asked == []
    asyncio.run(receiver.commit(link, of_files(tmp_path)))
    body = {"model_path": str(tmp_path), "load_format": "auto"}
    assert link.asked == [("/update_weights_from_disk", body)]


def test_a_damaged_file_is_read_as_it_is(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    parcel = Parcel(["a"], {"a": "f" * 16}, {"kind": "file", "path": str(tmp_path / "model.safetensors")})
    [read] = asyncio.run(SGLangReceiver().put(scripted(), of_files(tmp_path), parcel))
    assert read == {"a": fingerprint(torch.ones(3))}


def test_a_group_has_a_session_around_its_buckets():
    done = {"success": True}
    link, receiver = scripted(done, done, done, done, done), SGLangReceiver()
    message = {"kind": "group", "group": "g", "tensors": [["a", "bfloat16", [2, 3]], ["b", "float32", [1]]]}

    async def story():
        await receiver.connect(link, of_a_group(), GROUP)
        await receiver.begin(link, of_a_group())
        assert await receiver.put(link, of_a_group(), Parcel(["a", "b"], {}, message)) == []
        await receiver.commit(link, of_a_group())
        await receiver.stamp(link, 7, 5.0)

    asyncio.run(story())
    assert [path for path, _ in link.asked] == [
        "/init_weights_update_group",
        "/begin_weight_update",
        "/update_weights_from_distributed",
        "/end_weight_update",
        "/update_weight_version",
    ]
    joined = link.asked[0][1]
    assert (joined["rank_offset"], joined["world_size"], joined["backend"]) == (1, 3, "gloo")
    sent = link.asked[2][1]
    assert (sent["names"], sent["dtypes"], sent["shapes"]) == (["a", "b"], ["bfloat16", "float32"], [[2, 3], [1]])
    assert (sent["load_format"], sent["flush_cache"]) == ("flattened_bucket", False)
    assert link.asked[4][1] == {"new_version": "7", "abort_all_requests": False}


@pytest.mark.parametrize("answer", [{"success": False, "message": "no such file"}, RequestError("no such file")])
def test_a_failure_is_an_error_with_its_reason(answer, tmp_path):
    with pytest.raises(EngineError, match="no such file"):
        asyncio.run(SGLangReceiver().commit(scripted(answer), of_files(tmp_path)))


def test_its_settings_tell_type_and_workers():
    link = scripted({"dtype": "bfloat16", "tp_size": 2, "pp_size": 1, "device": "cpu"}, {"dtype": "auto"})
    facts = asyncio.run(SGLangReceiver().facts(link, 5.0))
    assert (facts.dtype, facts.num_workers, facts.device) == (torch.bfloat16, 2, "cpu")
    assert asyncio.run(SGLangReceiver().facts(link, 5.0)).dtype is None


def test_pickled_tensors_are_none_of_its_ways():
    assert "cuda_ipc" not in SGLangReceiver().transports
    assert "pickled objects, which llmkit does not send: cuda_ipc" in SGLangReceiver().refusal("cuda_ipc")
