"""Adapters beside weights of 4 and 8 bits: those that say so train there and go on from a checkpoint."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.utils.integrations import dequantize_module_weight

from llmkit import plugins
from llmkit.adapters.contract import QUANTISED, TORCHAO, AdapterContext
from llmkit.config.schema import ModelConfig
from llmkit.errors import ConfigError, ModelError
from llmkit.models.loading import load_model, load_on_meta
from llmkit.models.logprobs import token_logprobs
from llmkit.models.quantizing import quantization_options, weight_bytes
from llmkit.testing.adapter import AdapterContract

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"start_r": 8, "target_r": 4, "every_steps": 1},
    "adaption_prompt": {"length": 4},
    "dora": {"r": 8},
    "eva": {"r": 4, "rho": 1.0, "tau": 0.9, "num_batches": 2},
    "ia3": {},
    "loftq": {"r": 8},
    "lora": {"r": 8},
    "oft": {"block_size": 16},
    "prompt_tuning": {"num_virtual_tokens": 5},
    "rslora": {"r": 8},
    "road": {"group_size": 16},
    "vera": {"r": 64},
}
CASES = [
    (name, quantization)
    for name in OPTIONS
    for quantization in QUANTISED
    if quantization in plugins.load("adapters", name).facts.works_on_quantised
]


def contract(plugin: str, quantized: str, model: Path) -> AdapterContract:
    class OnQuantised(AdapterContract):
        name = plugin
        options = OPTIONS[plugin]
        learning_rate = 0.5 if plugin == "adaption_prompt" else 0.02

        def base_model(self) -> Any:
            return load_model(ModelConfig(path=str(model), quantization=quantized))  # type: ignore[arg-type]

        def context(self) -> AdapterContext:
            return AdapterContext(
                total_steps=self.num_steps,
                draw_batches=self.batches,
                quantization=quantized,
                load_whole=lambda: load_model(ModelConfig(path=str(model))),
            )

    return OnQuantised()


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.parametrize("name", ["lora", "rslora"])
def test_it_learns_beside_weights_of_torchao(name: str, tiny_llama: Path, tmp_path: Path):
    here = contract(name, TORCHAO, tiny_llama)
    test_it_learns_beside_few_bits_and_goes_on_from_a_checkpoint(name, TORCHAO, tiny_llama, tmp_path)
    whole, few = here.logits(contract("lora", "none", tiny_llama).base_model()), here.logits(here.base_model())
    assert 0 < float((whole - few).abs().max()) < 0.05
    here.test_merging_keeps_what_was_learnt_or_is_refused()


@needs_bitsandbytes
@pytest.mark.parametrize(("name", "quantization"), CASES)
def test_it_learns_beside_few_bits_and_goes_on_from_a_checkpoint(
    name: str, quantization: str, tiny_llama: Path, tmp_path: Path
):
    here = contract(name, quantization, tiny_llama)
    adapter, model = here.attached()
    losses = here.train(adapter, model, range(1, 7))
    assert losses[-1] < losses[0]
    here.test_a_restored_adapter_trains_on_as_if_it_had_not_stopped(tmp_path)


@needs_bitsandbytes
@pytest.mark.parametrize("quantization", QUANTISED)
def test_few_bits_are_near_the_whole_weights_and_not_the_same(quantization: str, tiny_llama: Path):
    whole, few = contract("lora", "none", tiny_llama), contract("lora", quantization, tiny_llama)
    apart = (whole.logits(whole.base_model()) - few.logits(few.base_model())).abs().max()
    assert 0 < apart < 0.1


@needs_bitsandbytes
def test_loftq_begins_with_what_rounding_has_lost(tiny_llama: Path):
    # With the smallest width as its rank, 32 of 64, nothing of what the narrowest modules have lost is left out.
    here = contract("loftq", "bnb_4bit", tiny_llama)
    here.options = {"r": 32}
    whole = here.logits(load_model(ModelConfig(path=str(tiny_llama))))
    _, model = here.attached()
    with_adapter = (here.logits(model.eval()) - whole).abs().max()
    with model.disable_adapter():
        without = (here.logits(model) - whole).abs().max()
    assert with_adapter < without / 3
    layer = model.get_base_model().model.layers[0].self_attn.k_proj
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    rounded = dequantize_module_weight(layer.get_base_layer())
    original = load_model(ModelConfig(path=str(tiny_llama))).model.layers[0].self_attn.k_proj.weight
    torch.testing.assert_close(rounded + update, original, rtol=0, atol=1e-6)


def test_loftq_on_whole_weights_says_what_to_set():
    adapter = plugins.load("adapters", "loftq")
    with pytest.raises(ConfigError, match=r"set model\.quantization=bnb_4bit"):
        adapter(adapter.Config()).begin(AdapterContext())


@needs_bitsandbytes
@pytest.mark.parametrize("quantization", QUANTISED)
def test_a_measurement_before_training_changes_no_gradient(quantization: str, tiny_llama: Path):
    # bitsandbytes reorders 4-bit weights for inference on some CPUs, and gradients stopped at them from then on.
    here = contract("lora", quantization, tiny_llama)
    gradients = []
    for measures in (False, True):
        _, model = here.attached()
        if measures:
            here.logits(model.eval())
        model.train()
        (batch,) = here.batches(1)
        (-token_logprobs(model, batch)[0].mean()).backward()
        gradients.append([one.grad for one in model.parameters() if one.requires_grad])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


@needs_bitsandbytes
def test_merging_into_few_bits_is_refused(tiny_llama: Path):
    adapter, model = contract("lora", "bnb_4bit", tiny_llama).attached()
    with pytest.raises(ConfigError, match="would round it; merge it into the whole ones"):
        adapter.merge(model)


@pytest.mark.parametrize("name", ["full", "pissa", "hra"])
def test_adapters_that_need_whole_weights_say_so(name: str):
    adapter = plugins.load("adapters", name)
    with pytest.raises(ConfigError, match=r"model\.quantization=bnb_4bit"):
        adapter.build(adapter.Config()).begin(AdapterContext(quantization="bnb_4bit", total_steps=10))


def test_without_bitsandbytes_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmkit.models.quantizing.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'llmkit\[quantization\]'"):
        quantization_options(ModelConfig(quantization="bnb_8bit"))


def test_without_torchao_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmkit.models.quantizing.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs torchao: pip install 'llmkit\[torchao\]'"):
        quantization_options(ModelConfig(quantization=TORCHAO))


def test_memory_of_few_bits(tiny_llama: Path):
    # Each of two layers: 64 x (64 + 32 + 32 + 64) of attention and 3 x 64 x 128 of feed-forward weights.
    linear = 2 * (64 * 192 + 3 * 64 * 128)
    model = load_on_meta(ModelConfig(path=str(tiny_llama)))
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert weight_bytes(model, "none", 4) == 4 * whole
    assert weight_bytes(model, "bnb_8bit", 4) == 4 * (whole - linear) + linear
    assert weight_bytes(model, "bnb_4bit", 2) == 2 * (whole - linear) + linear // 2
