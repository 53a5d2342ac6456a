"""What an adapter writes: few keys, its base model, and weights that plain PEFT reads."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from llmkit import plugins
from llmkit.adapters.adapter_files import minimal, read_config, read_weights
from llmkit.adapters.contract import AdapterContext
from llmkit.adapters.wrapping import quiet
from llmkit.config.schema import ModelConfig
from llmkit.errors import CheckpointError
from llmkit.models.loading import load_model


def save(name: str, options: dict[str, Any], tiny_llama: Path, directory: Path) -> Any:
    plugin = plugins.load("adapters", name)
    adapter = plugin.build(plugin.Config(**options))
    adapter.begin(AdapterContext(base_model="org/model", revision="v2", total_steps=10))
    model: Any = adapter.attach(load_model(ModelConfig(path=str(tiny_llama))))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    adapter.save(model, directory)
    return model.eval()


def test_lora_writes_what_describes_it_and_nothing_else(tiny_llama: Path, tmp_path: Path):
    save("lora", {"r": 4, "alpha": 8}, tiny_llama, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text()) == {
        "base_model_name_or_path": "org/model",
        "inference_mode": True,
        "lora_alpha": 8,
        "peft_type": "LORA",
        "r": 4,
        "revision": "v2",
        "target_modules": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }


def test_a_chosen_value_is_written_though_it_is_the_default(tiny_llama: Path, tmp_path: Path):
    # PEFT's default rank is 8 today.
    save("lora", {"r": 8}, tiny_llama, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 8


def test_nested_settings_keep_what_differs():
    config = peft.LoraConfig(velora_config={"num_groups": 4})
    assert minimal(config)["velora_config"]["num_groups"] == 4
    assert "runtime_config" not in minimal(config)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lora", {"r": 4, "rank_pattern": {"q_proj": 2}, "trainable_token_indices": (1, 2)}),
        ("lora", {"r": 4, "modules_to_save": ("lm_head",), "bias": "all"}),
        ("dora", {"r": 4}),
        ("loha", {"r": 4}),
        ("vera", {"r": 16, "save_projection": False}),
        ("fourierft", {"num_frequencies": 50}),
        ("adalora", {"start_r": 4, "target_r": 2}),
        ("miss", {"r": 8, "form": "bat"}),
        ("prompt_tuning", {"num_virtual_tokens": 3}),
        ("p_tuning", {"num_virtual_tokens": 3}),
        ("prefix_tuning", {"num_virtual_tokens": 3}),
        ("shira", {"r": 4}),
    ],
)
def test_plain_peft_reads_it(name: str, options: dict[str, Any], tiny_llama: Path, tmp_path: Path):
    model = save(name, options, tiny_llama, tmp_path)
    ids = torch.arange(1, 12)[None]
    with quiet():
        plain = peft.PeftModel.from_pretrained(load_model(ModelConfig(path=str(tiny_llama))), tmp_path).eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=1e-5)


def test_a_torn_configuration_names_its_file(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"')
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        read_config(tmp_path)


def test_missing_weights_name_their_file(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        read_weights(tmp_path)


def test_weights_of_another_adapter_are_refused(tiny_llama: Path, tmp_path: Path):
    save("lora", {"r": 4}, tiny_llama, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj"]
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    plugin = plugins.load("adapters", "lora")
    with pytest.raises(CheckpointError, match="have no place in this adapter"):
        plugin.build(plugin.Config(r=4)).restore(load_model(ModelConfig(path=str(tiny_llama))), tmp_path)
