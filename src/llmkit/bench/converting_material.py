"""What a checkpoint needs beside its weights to be converted: a tokenizer, and an adapter of random values."""

from pathlib import Path
from typing import Any

RANK = 16
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def write_tokenizer(model: Path, directory: Path) -> None:
    """Put a tokenizer beside a model that has none and lies in the benchmark's own directory."""
    if directory not in model.parents:
        return
    from llmkit.config.schema import ModelConfig
    from llmkit.models.loading import load_tokenizer

    load_tokenizer(ModelConfig(path="builtin:tiny")).save_pretrained(model)


def write_adapter(model: Path, directory: Path) -> None:
    """A LoRA of the attention's projections in PEFT's layout, small enough that sums stay in range."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    from llmkit.config.schema import ModelConfig
    from llmkit.models.loading import load_on_meta

    directory.mkdir()
    LoraConfig(
        r=RANK, lora_alpha=RANK, target_modules=list(TARGETS), base_model_name_or_path=str(model), task_type="CAUSAL_LM"
    ).save_pretrained(str(directory))
    state: dict[str, Any] = {}
    source = torch.Generator().manual_seed(0)
    for name, module in load_on_meta(ModelConfig(path=str(model))).named_modules():
        if name.rpartition(".")[2] in TARGETS and isinstance(module, torch.nn.Linear):
            start = f"base_model.model.{name}.lora_"
            state[f"{start}A.weight"] = torch.randn(RANK, module.in_features, generator=source) * 0.01
            state[f"{start}B.weight"] = torch.randn(module.out_features, RANK, generator=source) * 0.01
    save_file(state, directory / "adapter_model.safetensors")
