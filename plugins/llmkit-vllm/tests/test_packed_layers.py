"""Packed weights after an update, with layers made as vLLM's CPU backend makes them."""

import importlib
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

WORKER = Path(__file__).parents[1] / "src/llmkit_vllm/worker"
ADDRESSES = itertools.count(1000)
LIVE: dict[int, Tensor] = {}
"""Packed weights by their address, as oneDNN keeps them."""


class Handler:
    """Frees its packed weight when it goes, as vLLM's does."""

    def __init__(self, weight: Tensor) -> None:
        address = next(ADDRESSES)
        LIVE[address] = weight.detach().clone()
        self.handler_tensor = torch.tensor(address)

    def __del__(self) -> None:
        del LIVE[int(self.handler_tensor)]


class Packing:
    """What packs a layer's weight, as a tensor or behind a handler."""

    def __init__(self, *, handlers: bool, removes: bool) -> None:
        self._handlers = handlers
        self._removes = removes

    def process_weights_after_loading(self, layer: Any) -> None:
        if self._handlers:
            handler = Handler(layer.weight)
            layer.cpu_linear = lambda x: x @ LIVE[int(handler.handler_tensor)].T
        else:
            packed = layer.weight.detach().clone()
            layer.cpu_linear = lambda x: x @ packed.T
        if self._removes:
            layer.weight = nn.Parameter(torch.empty(0), requires_grad=False)


class Layer(nn.Module):
    cpu_linear: Any
    quant_method: Packing

    def __init__(self, weight: nn.Parameter, packing: Packing) -> None:
        super().__init__()
        self.weight = weight
        self.quant_method = packing  # type: ignore[assignment]
        packing.process_weights_after_loading(self)


@pytest.fixture
def packed_layers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """From the server's own path, which is none of this environment."""
    monkeypatch.syspath_prepend(str(WORKER))
    return importlib.import_module("llmkit_vllm_worker.packed_layers").PackedLayers


def parameter(seed: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)), requires_grad=False)


def reload(layer: Layer, weight: nn.Parameter) -> None:
    """What vLLM's reload does to a layer."""
    layer.weight = weight
    layer.quant_method.process_weights_after_loading(layer)


@pytest.fixture(autouse=True)
def _no_weights_left():
    LIVE.clear()
    yield
    assert not LIVE


@pytest.mark.parametrize("handlers", [False, True])
def test_compiled_code_multiplies_with_the_new_weight(handlers, packed_layers):
    layer = Layer(parameter(0), Packing(handlers=handlers, removes=True))
    compiled, before = layer.cpu_linear, packed_layers(nn.Sequential(layer))
    reload(layer, parameter(1))
    ones = torch.ones(1, 4)
    assert not torch.equal(compiled(ones), ones @ parameter(1).T)
    assert before.renew() == 1
    assert torch.equal(compiled(ones), ones @ parameter(1).T)
    assert layer.cpu_linear is compiled


def test_the_old_packed_weight_is_freed(packed_layers):
    layer = Layer(parameter(0), Packing(handlers=True, removes=True))
    before = packed_layers(nn.Sequential(layer))
    for seed in (1, 2, 3):
        reload(layer, parameter(seed))
        before.renew()
        assert len(LIVE) == 1
        before = packed_layers(nn.Sequential(layer))


@pytest.mark.parametrize("handlers", [False, True])
def test_a_head_that_shares_the_embeddings_weight_is_packed_again(handlers, packed_layers):
    shared = parameter(0)
    packing = Packing(handlers=handlers, removes=False)
    embedding, head = Layer(shared, packing), Layer(shared, packing)
    compiled, before = head.cpu_linear, packed_layers(nn.ModuleList([embedding, head]))
    shared.copy_(parameter(1))
    reload(embedding, shared)
    assert before.renew() == 2
    ones = torch.ones(1, 4)
    assert torch.equal(compiled(ones), ones @ parameter(1).T)


def test_a_layer_that_got_nothing_is_an_error(packed_layers):
    layer = Layer(parameter(0), Packing(handlers=True, removes=True))
    before = packed_layers(nn.Sequential(layer))
    with pytest.raises(RuntimeError, match="a layer of the kind Layer got no new weight"):
        before.renew()


def test_models_that_pack_nothing_are_left_alone(packed_layers):
    assert packed_layers(nn.Sequential(nn.Linear(2, 2))).renew() == 0
