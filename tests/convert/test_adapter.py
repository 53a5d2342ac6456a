"""Adapters as plain LoRA: the same logits where nothing is left out, and the loss stated where something is."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llmkit import cli
from llmkit.adapters.wrapping import quiet
from llmkit.testing.tiny import tiny_model

TOKENS = torch.arange(40).reshape(2, 20)
MODULES = ["q_proj", "down_proj"]


def make(path: Path, config: Any) -> Path:
    with quiet():
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model()), config)
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        model.peft_config["default"].base_model_name_or_path = tiny_model()
        model.save_pretrained(path)
    return path


def logits(adapter: Path) -> torch.Tensor:
    with quiet(), torch.no_grad():
        model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model()), adapter)
        return model.eval()(TOKENS).logits


def convert(*arguments: object) -> int:
    return cli.run(["convert", "adapter", *map(str, arguments)])


@pytest.mark.parametrize(
    "config",
    [
        peft.LoHaConfig(r=4, target_modules=MODULES, task_type="CAUSAL_LM"),
        peft.LoraConfig(r=4, target_modules=MODULES, task_type="CAUSAL_LM", use_rslora=True),
    ],
    ids=["loha", "rslora"],
)
def test_without_a_rank_the_lora_says_the_same(config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapter = make(tmp_path / "adapter", config)
    assert convert(adapter, "--output", tmp_path / "lora", "--json") == 0
    assert json.loads(capsys.readouterr().out)["checks"]["update_error"] < 1e-2
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    torch.testing.assert_close(logits(tmp_path / "lora"), logits(adapter), rtol=0, atol=1e-3)


def test_a_lower_rank_loses_what_the_singular_values_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapter = make(
        tmp_path / "adapter", peft.LoraConfig(r=4, lora_alpha=4, target_modules=MODULES, task_type="CAUSAL_LM")
    )
    assert convert(adapter, "--rank", 2, "--output", tmp_path / "lora", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["options"]["ranks"] == {"min": 2, "max": 2}
    state = peft.load_peft_weights(str(adapter))
    lost = whole = 0.0
    for name, down in state.items():
        if "lora_A" in name:
            values = torch.linalg.svdvals(state[name.replace("lora_A", "lora_B")] @ down).square()
            lost, whole = lost + values[2:].sum().item(), whole + values.sum().item()
    assert document["checks"]["update_error"] == pytest.approx((lost / whole) ** 0.5, rel=1e-2)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (peft.IA3Config(target_modules=MODULES, feedforward_modules=["down_proj"]), "not a matrix that is added"),
        (peft.LoraConfig(target_modules=MODULES, use_dora=True), "use_dora=True"),
        (peft.LoraConfig(target_modules=MODULES, init_lora_weights="pissa"), "changed the base weights"),
    ],
    ids=["ia3", "dora", "pissa"],
)
def test_what_is_no_added_matrix_is_refused(
    config: Any, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert convert(make(tmp_path / "adapter", config), "--output", tmp_path / "lora") == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "lora").exists()


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapter = make(tmp_path / "lora", peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    state = load_file(adapter / "adapter_model.safetensors")
    state[min(state)][0, 0] = float("nan")
    save_file(state, adapter / "adapter_model.safetensors")
    assert convert(adapter, "--output", tmp_path / "out") == 2
    assert "has numbers that are not finite" in capsys.readouterr().err
