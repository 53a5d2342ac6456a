"""What cannot work is refused before any weight is loaded, with the value, the place and the way out."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from llmkit import plugins
from llmkit.adapters.contract import AdapterContext
from llmkit.adapters.divisibility import common_divisors
from llmkit.config.schema import ModelConfig
from llmkit.errors import ConfigError, PluginError
from llmkit.models.loading import load_on_meta

READY = AdapterContext(total_steps=20, draw_batches=lambda count: [])


def refusal(name: str, options: dict[str, Any], model: nn.Module, context: AdapterContext = READY) -> str:
    plugin = plugins.load("adapters", name)
    adapter = plugin.build(plugin.Config(**options))

    def begin_and_check() -> None:
        adapter.begin(context)
        adapter.check(model)

    with pytest.raises(ConfigError) as caught:
        begin_and_check()
    return str(caught.value)


@pytest.fixture(scope="module")
def shapes(tiny_llama: Path) -> nn.Module:
    return load_on_meta(ModelConfig(path=str(tiny_llama)))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("lora", {"target_modules": ("q_prj",)}, "no module 'q_prj'. Did you mean 'q_proj'? Linear layers of this"),
        ("lora", {"target_modules": "q_proj"}, "a text is a regular expression for full names"),
        ("lora", {"target_modules": ".*(q_proj"}, "not a regular expression"),
        ("lora", {"exclude_modules": ("k_pro",)}, "Did you mean 'k_proj'?"),
        ("lora", {"exclude_modules": ".*proj"}, "leave none of adapter.target_modules"),
        ("lora", {"modules_to_save": ("lm_heads",)}, "Did you mean 'lm_head'?"),
        ("lora", {"layers_to_transform": (2,)}, "there is no layer 2; this model has 2, from 0 to 1"),
        ("lora", {"target_modules": r".*q_proj", "layers_to_transform": (0,)}, "no effect on a regular expression"),
        ("lora", {"rank_pattern": {"q_projection": 4}}, "'q_projection' fits none of the adapted modules"),
        ("lora", {"trainable_token_indices": (300,)}, "no token 300; the model has embeddings for 256"),
        ("dora", {"lora_bias": True}, "use adapter.name=lora"),
        ("hyenadna", {}, "this is not one. Did you mean adapter.name=lora?"),
        ("pissa", {"r": 65}, "model.layers.0.self_attn.q_proj can have: it has 64 inputs"),
        ("eva", {"r": 40}, "and model.layers.0.self_attn.q_proj has 64 inputs"),
        ("oft", {"block_size": 48}, "does not divide the 64 inputs of model.layers.0.self_attn.q_proj; these would: "),
        ("boft", {"block_size": 6}, "does not divide the 64 inputs"),
        ("boft", {"factors": 2}, "needs a GPU"),
        ("gralora", {"blocks": 3, "r": 9}, "adapter.blocks=3 does not divide the 64 inputs"),
        ("gralora", {"blocks": 4, "r": 30}, "adapter.r=30 is not a multiple of adapter.blocks=4"),
        ("bdlora", {"num_blocks": 3, "r": 9}, "adapter.num_blocks=3 does not divide"),
        ("vblora", {}, "adapter.vector_length=256 does not divide the 64 inputs"),
        ("vblora", {"vector_length": 16, "num_vectors": 4, "topk": 5}, "more than the 4 vectors"),
        ("c3a", {}, "adapter.block_size=256 does not divide"),
        ("road", {"group_size": 48}, "does not divide the 64 outputs of model.layers.0.self_attn.q_proj"),
        ("velora", {"num_groups": 48}, "does not divide the 64 inputs"),
        ("miss", {"form": "mini", "mini_r": 3}, "adapter.mini_r=3 does not divide the 64 outputs"),
        ("fourierft", {"num_frequencies": 2049}, "more than the 2048 values of model.layers.0.self_attn.k_proj"),
        ("shira", {"r": 32}, "would train as many values as model.layers.0.self_attn.q_proj has"),
        ("supertuning", {"alpha": 8.0}, "no effect without adapter.r"),
        ("ia3", {"feedforward_modules": ("up_proj",)}, "up_proj is none of adapter.target_modules"),
        ("trainable_tokens", {"token_indices": (256,)}, "no token 256"),
        ("prompt_tuning", {"num_virtual_tokens": 128}, "leaves nothing of the model's context of 128 tokens"),
        ("cartridge", {"num_virtual_tokens": 2, "num_frozen_tokens": 2}, "leaves none of"),
        ("adalora", {"target_r": 12}, "must be below adapter.start_r=12"),
        ("adalora", {"warmup_fraction": 0.6, "final_fraction": 0.5}, "leave none of 20 steps"),
        ("full", {"freeze": ("layers.*",)}, "'layers.*' fits none of the model's 21 weights"),
        ("full", {"freeze": ("re:(",)}, "is not a regular expression"),
        ("full", {"freeze": ("*",)}, "leaves no weight to train"),
        ("full", {"freeze_except": ("*",)}, "no effect without adapter.freeze"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)  # fmt: skip
def test_it_says_what_does_not_fit_and_what_would(name: str, options: dict[str, Any], says: str, shapes: nn.Module):
    assert says in refusal(name, options, shapes)


def test_adalora_without_a_length_asks_for_one(shapes: nn.Module):
    assert "set max_steps" in refusal("adalora", {}, shapes, AdapterContext())


@pytest.mark.parametrize("name", ["eva", "lora_ga"])
def test_a_start_from_data_needs_data(name: str, shapes: nn.Module):
    assert "this run has none" in refusal(name, {"r": 4}, shapes, AdapterContext(total_steps=20))


def test_dora_refuses_layers_that_lie_on_several_devices(shapes: nn.Module, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nn.Linear, "__module__", "megatron.core.tensor_parallel.layers")
    assert "is a layer of Megatron" in refusal("dora", {}, shapes)


@pytest.mark.parametrize(
    ("name", "package"), [("corda", "attrs"), ("adamss", "scikit-learn"), ("loftq", "bitsandbytes")]
)
def test_a_missing_package_is_named_with_what_installs_it(name: str, package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmkit.adapters.peft_adapter.find_spec", lambda module: None)
    plugin = plugins.load("adapters", name)
    with pytest.raises(PluginError, match=rf"needs {package}: pip install 'llmkit\[{plugin.EXTRA}\]'"):
        plugin.build(plugin.Config())


def test_adaption_prompt_names_the_models_that_it_knows():
    from transformers import AutoModelForCausalLM, Qwen3Config

    config = Qwen3Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
    )
    qwen = AutoModelForCausalLM.from_config(config)
    assert "gpt2, llama, mistral, and this is qwen3" in refusal("adaption_prompt", {}, qwen)


def test_sizes_that_would_divide_are_all_common_divisors():
    assert common_divisors({64, 48}) == [1, 2, 4, 8, 16]
