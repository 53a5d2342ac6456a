"""LoRA that begins from weights or data: what is taken out of the base, and what a checkpoint says of it."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from llmkit import plugins
from llmkit.adapters.contract import AdapterContext
from llmkit.adapters.data_starts import MAX_ROUNDS
from llmkit.adapters.wrapping import quiet
from llmkit.config.schema import ModelConfig
from llmkit.errors import ConfigError
from llmkit.models.loading import load_model
from llmkit.testing.adapter import AdapterContract

RESIDUAL = ["corda", "lora_ga", "olora", "pissa"]
PROJECTION = "model.layers.0.self_attn.q_proj"


def contract(plugin: str, tiny_llama: Path, **settings: Any) -> AdapterContract:
    if plugin == "corda":
        pytest.importorskip("attr", reason="the adapter needs attrs")

    class OnLlama(AdapterContract):
        name = plugin
        options: ClassVar[dict[str, Any]] = {"r": 4, **settings}

        def base_model(self) -> Any:
            return load_model(ModelConfig(path=str(tiny_llama)))

    return OnLlama()


@pytest.mark.parametrize("name", RESIDUAL)
def test_base_and_first_update_together_are_the_weight(name: str, tiny_llama: Path):
    here = contract(name, tiny_llama)
    _, model = here.attached()
    layer = model.get_base_model().get_submodule(PROJECTION)
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    whole = here.base_model().get_submodule(PROJECTION).weight
    torch.testing.assert_close(layer.get_base_layer().weight + update, whole, rtol=0, atol=1e-6)
    assert update.abs().max() > 1e-4


def test_pissa_takes_the_strongest_directions(tiny_llama: Path):
    here = contract("pissa", tiny_llama)
    _, model = here.attached()
    rest = torch.linalg.svdvals(model.get_base_model().get_submodule(PROJECTION).get_base_layer().weight)
    whole = torch.linalg.svdvals(here.base_model().get_submodule(PROJECTION).weight)
    torch.testing.assert_close(rest[: 64 - 4], whole[4:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RESIDUAL)
@pytest.mark.parametrize("settings", [{}, {"rank_pattern": {"q_proj": 6}, "alpha_pattern": {"v_proj": 5.0}}])
def test_a_checkpoint_is_a_plain_lora_of_twice_the_rank_for_the_untouched_model(
    name: str, settings: dict[str, Any], tiny_llama: Path, tmp_path: Path
):
    import peft

    here = contract(name, tiny_llama, **settings)
    adapter, model = here.trained()
    adapter.save(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 64)
    assert config.get("init_lora_weights", True) is True
    assert not {"corda_config", "lora_ga_config"} & set(config)
    with quiet():
        plain = peft.PeftModel.from_pretrained(here.base_model(), tmp_path).eval()
    torch.testing.assert_close(here.logits(plain), here.logits(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_resumed_base_has_the_same_bits(name: str, tiny_llama: Path, tmp_path: Path):
    here = contract(name, tiny_llama)
    adapter, model = here.trained()
    adapter.save(model, tmp_path)
    restored: Any = here.build().restore(here.base_model(), tmp_path)
    for expected, found in zip(model.parameters(), restored.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_a_rank_for_what_is_a_lora_already_is_refused(tiny_llama: Path, tmp_path: Path):
    adapter, model = contract("pissa", tiny_llama).attached()
    with pytest.raises(ConfigError, match="a plain LoRA already, of rank 8"):
        adapter.save_as_lora(model, tmp_path, rank=2)


def test_eva_gives_more_ranks_to_some_modules_and_no_more_in_all(tiny_llama: Path):
    here = contract("eva", tiny_llama, rho=2.0, tau=0.9, num_batches=2)
    _, model = here.attached()
    ranks = [
        layer.r["default"] for layer in model.modules() if "default" in getattr(layer, "lora_A", {})
    ]  # fmt: skip
    assert sum(ranks) <= 14 * 4
    assert max(ranks) > 4


def test_eva_begins_with_orthonormal_directions(tiny_llama: Path):
    _, model = contract("eva", tiny_llama, rho=1.0, tau=0.9, num_batches=2).attached()
    first = model.get_base_model().get_submodule(PROJECTION).lora_A["default"].weight
    torch.testing.assert_close(first @ first.T, torch.eye(len(first)), rtol=0, atol=1e-4)


def test_directions_that_never_settle_end_with_advice(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmkit.adapters.data_starts.MAX_ROUNDS", 1)
    with pytest.raises(ConfigError, match=r"have not settled after 1 rounds .* lower adapter.tau"):
        contract("eva", tiny_llama, tau=1.0, num_batches=2).attached()
    assert MAX_ROUNDS > 1


def test_too_few_tokens_for_the_directions_are_told(tiny_llama: Path):
    here = contract("eva", tiny_llama, r=30, rho=2.0)
    with pytest.raises(ConfigError, match=r"asks for 60 directions, .* has 45 trained tokens"):
        here.attached()


@pytest.mark.parametrize("name", ["lora_ga", "eva"])
def test_models_without_weights_need_no_rows(name: str, tiny_llama: Path):
    from llmkit.models.loading import load_on_meta

    plugin = plugins.load("adapters", name)
    adapter = plugin.build(plugin.Config(r=4))
    adapter.begin(AdapterContext(draw_batches=lambda count: []))
    model = load_on_meta(ModelConfig(path=str(tiny_llama)))
    with torch.device("meta"):
        assert any(parameter.requires_grad for parameter in adapter.attach(model).parameters())
