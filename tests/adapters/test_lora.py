"""LoRA's options: which modules, which ranks, which rates, and what follows for serving."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from llmkit import plugins
from llmkit.adapters.contract import Adapter
from llmkit.adapters.lora import LoRA, LoRAConfig
from llmkit.config.schema import ModelConfig
from llmkit.engines.training.torch_engine import TorchEngine, parameter_groups
from llmkit.models.loading import load_model
from llmkit.models.policy import Policy
from llmkit.testing.settings import optim


def lora(**options: Any) -> LoRA:
    return LoRA.build(LoRAConfig(**options))


def attach(adapter: Adapter, tiny_llama: Path) -> Any:
    torch.manual_seed(0)
    return adapter.attach(load_model(ModelConfig(path=str(tiny_llama))))


def trained_modules(model: Any) -> set[str]:
    """Names of the adapted modules, without what PEFT puts before and after them."""
    names = (name for name, parameter in model.named_parameters() if parameter.requires_grad and ".lora_A." in name)
    return {name.removeprefix("base_model.model.model.").partition(".lora_A")[0] for name in names}


def test_all_linear_is_every_linear_layer_but_the_head(tiny_llama: Path):
    names = trained_modules(attach(lora(r=2), tiny_llama))
    assert len(names) == 14
    assert not any("lm_head" in name for name in names)


def test_modules_are_chosen_by_name_layer_and_exception(tiny_llama: Path):
    chosen = lora(r=2, target_modules=("q_proj", "v_proj"), layers_to_transform=(1,), exclude_modules=("v_proj",))
    assert trained_modules(attach(chosen, tiny_llama)) == {"layers.1.self_attn.q_proj"}


def test_modules_are_chosen_by_a_regular_expression(tiny_llama: Path):
    chosen = lora(r=2, target_modules=r".*layers\.0\..*(up|down)_proj")
    assert trained_modules(attach(chosen, tiny_llama)) == {"layers.0.mlp.up_proj", "layers.0.mlp.down_proj"}


def test_some_modules_have_another_rank_and_scale(tiny_llama: Path):
    chosen = lora(r=2, alpha=4, rank_pattern={"q_proj": 8}, alpha_pattern={"layers.1.self_attn.q_proj": 40})
    layers = attach(chosen, tiny_llama).get_base_model().model.layers
    query, key = layers[1].self_attn.q_proj, layers[1].self_attn.k_proj
    assert (query.r["default"], query.scaling["default"]) == (8, 40 / 8)
    assert (key.r["default"], key.scaling["default"]) == (2, 4 / 2)
    assert layers[0].self_attn.q_proj.scaling["default"] == 4 / 8


def test_rslora_scales_by_the_root_of_the_rank(tiny_llama: Path):
    by_option = attach(lora(r=16, alpha=8, rslora=True), tiny_llama)
    plugin = plugins.load("adapters", "rslora")
    by_name = attach(plugin.build(plugin.Config(r=16, alpha=8)), tiny_llama)
    for model in (by_option, by_name):
        assert model.get_base_model().model.layers[0].self_attn.q_proj.scaling["default"] == 8 / 4


def test_tokens_modules_and_biases_train_beside_the_matrices(tiny_llama: Path):
    model = attach(lora(r=2, trainable_token_indices=(3, 5), modules_to_save=("lm_head",)), tiny_llama)
    beside = {name for name, one in model.named_parameters() if one.requires_grad and ".lora_" not in name}
    assert beside == {
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta.default",
        "base_model.model.lm_head.modules_to_save.default.weight",
    }


@pytest.mark.parametrize("start", ["gaussian", "orthogonal"])
def test_other_starts_are_no_change_either(start: Any, tiny_llama: Path):
    ids = torch.arange(1, 20)[None]
    model = attach(lora(r=4, start=start), tiny_llama)
    base = load_model(ModelConfig(path=str(tiny_llama)))
    torch.testing.assert_close(model.eval()(ids).logits, base(ids).logits, rtol=0, atol=1e-5)
    plain = attach(lora(r=4), tiny_llama)
    first = "layers.0.self_attn.q_proj.lora_A.default.weight"
    matrix = model.get_parameter(f"base_model.model.model.{first}")
    assert not torch.equal(matrix, plain.get_parameter(f"base_model.model.model.{first}"))


def test_lora_plus_gives_the_second_matrix_its_own_rate(tiny_llama: Path):
    adapter = lora(r=2, b_learning_rate_ratio=16)
    model = attach(adapter, tiny_llama)
    groups = parameter_groups(model, optim(), adapter)
    assert [group.learning_rate_ratio for group in groups] == [1.0, 16.0]
    seconds = {id(one) for name, one in model.named_parameters() if ".lora_B." in name}
    assert {id(one) for one in groups[1].parameters} == seconds


def test_one_step_of_lora_plus_by_hand():
    # Adam's first step moves every weight by its learning rate, against the sign of its gradient.
    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("lora_A", "lora_B"):
                self.add_module(name, nn.ModuleDict({"default": nn.Linear(1, 1, bias=False)}))

    toy = nn.ModuleDict({"layer": Toy()})
    before = {name: one.item() for name, one in toy.named_parameters()}
    policy = Policy(toy, torch.device("cpu"), torch.float32)
    trainer = TorchEngine(policy, optim(learning_rate=0.1, max_grad_norm=0), 10, lora(b_learning_rate_ratio=4))
    trainer.backward(sum(one.sum() for one in toy.parameters()))
    assert trainer.step()["learning_rate"] == 0.1
    moved = {name: before[name] - one.item() for name, one in toy.named_parameters()}
    assert moved["layer.lora_A.default.weight"] == pytest.approx(0.1)
    assert moved["layer.lora_B.default.weight"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("options", "servers"),
    [
        ({}, ("vllm", "sglang")),
        ({"rslora": True}, ("vllm",)),
        ({"rank_pattern": {"q_proj": 4}}, ()),
        ({"modules_to_save": ("lm_head",)}, ()),
        ({"bias": "all"}, ()),
    ],
)
def test_what_trains_beside_decides_who_can_serve(options: dict[str, Any], servers: tuple[str, ...]):
    assert lora(**options).facts.servable_by == servers


def test_trained_biases_are_not_the_reference(tiny_llama: Path):
    assert lora().facts.keeps_base
    assert not lora(bias="all").facts.keeps_base


def test_a_bias_of_its_own_cannot_be_merged(tiny_llama: Path):
    assert "adds a bias" in lora(lora_bias=True).facts.not_mergeable


class Hyena(nn.Module):
    """The modules of a Hyena model's block, as HyenaDNA names them."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=1))
        self.mixer = nn.ModuleDict(
            {"in_proj": nn.Linear(8, 24), "out_proj": nn.Linear(8, 8), "filter": nn.Linear(3, 8)}
        )
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(8, 32), "fc2": nn.Linear(32, 8)})


def test_hyenadna_adapts_the_projections_and_leaves_the_filter():
    plugin = plugins.load("adapters", "hyenadna")
    adapter = plugin.build(plugin.Config(r=2))
    adapter.check(Hyena())
    from llmkit.adapters.target_modules import adapted_modules

    assert set(adapted_modules(Hyena(), adapter.config)) == {"mixer.in_proj", "mixer.out_proj", "mlp.fc1", "mlp.fc2"}


@pytest.mark.parametrize(
    ("alias", "name"), [("adaliprompt", "adaption_prompt"), ("bone", "miss"), ("fourier", "fourierft")]
)
def test_another_name_is_the_same_adapter_with_a_notice(alias: str, name: str, caplog: pytest.LogCaptureFixture):
    plugin, meant = plugins.load("adapters", alias), plugins.load("adapters", name)
    assert isinstance(plugin.build(plugin.Config()), meant)
    assert f"is another name of '{name}'" in caplog.text
