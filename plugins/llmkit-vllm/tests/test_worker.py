"""What runs in vLLM's workers, with a model and a reload in vLLM's place."""

import importlib
import json
import sys
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from llmkit.engines.inference.weight_sync.fingerprints import fingerprint

WORKER = Path(__file__).parents[1] / "src/llmkit_vllm/worker"


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)

    def load_weights(self, tensors: Any) -> set[str]:
        """What vLLM's models have: returns the names of what it loaded."""
        own, loaded = dict(self.named_parameters()), set()
        for name, tensor in tensors:
            own[name].data.copy_(tensor)
            loaded.add(name)
        return loaded


class Runner:
    """What of vLLM's model runner an update uses."""

    def __init__(self) -> None:
        self.model = Model()
        self.model_config = types.SimpleNamespace(quantization=None)
        self.forgotten: list[str] = []

    def get_model(self) -> Model:
        return self.model

    def __getattr__(self, name: str) -> Any:
        return lambda: self.forgotten.append(name)


class Reloads:
    """Stands in for vLLM's reload: counts how often a model was opened and closed."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def initialize_layerwise_reload(self, model: nn.Module) -> None:
        self.log.append("open")

    def finalize_layerwise_reload(self, model: nn.Module, config: Any) -> None:
        self.log.append("close")


class Worker:
    """A worker with the extension, asked as `/collective_rpc` asks."""

    def __init__(self, extension: Any, reloads: Reloads) -> None:
        class Extended(extension):  # type: ignore[misc] - as vLLM does it
            pass

        self.inner = Extended()
        self.inner.model_runner, self.inner.rank, self.inner.device = Runner(), 0, torch.device("cpu")
        self.inner.vllm_config = types.SimpleNamespace(model_config=types.SimpleNamespace(dtype=torch.bfloat16))
        self.reloads = reloads

    @property
    def runner(self) -> Runner:
        return self.inner.model_runner

    def ask(self, method: str, **message: Any) -> dict[str, Any]:
        return getattr(self.inner, f"llmkit_{method}")(json.dumps({"key": "k", **message}))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.syspath_prepend(str(WORKER))
    reloads = Reloads()
    config, loader = types.ModuleType("vllm.config"), types.ModuleType("vllm.model_executor.model_loader")
    config.set_current_vllm_config = lambda _: nullcontext()  # type: ignore[attr-defined]
    loader.reload = reloads  # type: ignore[attr-defined]
    modules = {"vllm": types.ModuleType("vllm"), "vllm.config": config, "vllm.model_executor.model_loader": loader}
    modules["vllm.model_executor"] = types.ModuleType("vllm.model_executor")
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return Worker(importlib.import_module("llmkit_vllm_worker.extension").WeightUpdates, reloads)


def weights() -> dict[str, torch.Tensor]:
    return {"first.weight": torch.ones(2, 3), "second.weight": torch.full((2, 2), 2.0)}


def put(worker: Worker, path: Path, tensors: dict[str, torch.Tensor], **message: Any) -> dict[str, Any]:
    save_file(tensors, path)
    return worker.ask("put", kind="file", path=str(path), fingerprints=True, **message)


def test_tensors_of_several_files_are_loaded_and_told_as_they_were_read(worker, tmp_path):
    assert worker.ask("begin") == {}
    for name, tensor in weights().items():
        answer = put(worker, tmp_path / name, {name: tensor})
        assert answer == {"fingerprints": {name: fingerprint(tensor)}}
    assert worker.ask("commit", names=list(weights())) == {"renewed": 0}
    assert torch.equal(worker.runner.model.first.weight, torch.ones(2, 3))
    assert worker.reloads.log == ["open", "close"]
    assert set(worker.runner.forgotten) == {"reset_lora_state", "reset_encoder_cache", "reset_mm_cache"}


def test_the_servers_checksum_is_the_senders(worker):
    theirs = importlib.import_module("llmkit_vllm_worker.fingerprints")
    generator = torch.Generator().manual_seed(0)
    for shape, dtype in (((5,), torch.bfloat16), ((700, 301), torch.float32), ((3, 1), torch.uint8), ((), torch.int64)):
        tensor = torch.randn(shape, generator=generator).mul(50).to(dtype)
        assert theirs.fingerprint(tensor) == fingerprint(tensor)
    assert theirs.fingerprint(torch.arange(9)[1:].view(2, 4).T) == fingerprint(torch.arange(9)[1:].view(2, 4).T)


def test_a_tensor_that_has_not_come_is_named(worker, tmp_path):
    worker.ask("begin")
    put(worker, tmp_path / "a", weights())
    answer = worker.ask("commit", names=[*weights(), "third.weight"])
    assert answer["error"].endswith("of 3 tensors 1 have not come: third.weight")
    assert worker.reloads.log == ["open", "close"]


def test_a_weight_of_the_server_that_nothing_is_for_is_named(worker, tmp_path):
    worker.ask("begin")
    put(worker, tmp_path / "a", {"first.weight": torch.ones(2, 3)})
    assert "weights got nothing: second.weight" in worker.ask("commit", names=["first.weight"])["error"]


def test_an_update_that_has_not_ended_is_given_up_by_the_next(worker, tmp_path):
    worker.ask("begin", key="old")
    worker.ask("begin", key="new")
    assert worker.reloads.log == ["open", "close", "open"]
    assert "this update is not under way" in put(worker, tmp_path / "a", weights(), key="old")["error"]
    assert "error" not in put(worker, tmp_path / "a", weights(), key="new")


def test_after_giving_up_there_is_no_update(worker, tmp_path):
    worker.ask("begin")
    assert worker.ask("abort") == {}
    assert worker.ask("abort") == {}
    assert "not under way" in worker.ask("commit", names=[])["error"]
    assert worker.reloads.log == ["open", "close"]


def test_what_goes_wrong_is_an_answer_and_never_an_exception(worker, tmp_path, caplog):
    worker.ask("begin")
    assert "FileNotFoundError" in worker.ask("put", kind="file", path=str(tmp_path / "no"), fingerprints=True)["error"]
    assert "no channel of the kind 'pigeon'" in worker.ask("put", kind="pigeon", fingerprints=True)["error"]
    assert "there is no process group" in worker.ask("put", kind="group", fingerprints=False)["error"]
    assert "weight update: put failed" in caplog.text


def test_it_tells_how_weights_are_kept(worker):
    assert worker.ask("describe") == {"dtype": "bfloat16", "device": "cpu", "rank": 0}
