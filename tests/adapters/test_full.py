"""Full fine-tuning, and which weights stay."""

from pathlib import Path

import pytest
import torch

from llmkit.adapters.full import Config, build
from llmkit.config.schema import ModelConfig
from llmkit.models.loading import load_model


def trainable(tiny_llama: Path, **options: tuple[str, ...]) -> set[str]:
    model = build(Config(**options)).attach(load_model(ModelConfig(path=str(tiny_llama))))
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_everything_trains_unless_it_is_frozen(tiny_llama: Path):
    assert len(trainable(tiny_llama)) == 21


@pytest.mark.parametrize("pattern", ["model.layers.0.*", r"re:model\.layers\.0\..*"])
def test_a_pattern_freezes_what_it_fits(pattern: str, tiny_llama: Path):
    # Each layer has four weights of attention, three of the feed-forward network and two norms.
    names = trainable(tiny_llama, freeze=(pattern,))
    assert len(names) == 21 - 9
    assert not any("layers.0" in name for name in names)


def test_exceptions_train_all_the_same(tiny_llama: Path):
    names = trainable(tiny_llama, freeze=("*",), freeze_except=("lm_head.weight", "*.layers.1.*norm.weight"))
    assert names == {
        "lm_head.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.post_attention_layernorm.weight",
    }


def test_what_is_frozen_has_its_bits_after_a_checkpoint(tiny_llama: Path, tmp_path: Path):
    adapter = build(Config(freeze=("model.embed_tokens.*",)))
    base = load_model(ModelConfig(path=str(tiny_llama)))
    model = adapter.attach(load_model(ModelConfig(path=str(tiny_llama))))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    adapter.save(model, tmp_path)
    restored = adapter.restore(load_model(ModelConfig(path=str(tiny_llama))), tmp_path)
    weights, first = dict(restored.named_parameters()), dict(base.named_parameters())
    assert torch.equal(weights["model.embed_tokens.weight"], first["model.embed_tokens.weight"])
    assert not weights["model.embed_tokens.weight"].requires_grad
    assert torch.equal(weights["lm_head.weight"], dict(model.named_parameters())["lm_head.weight"])
