"""Two-layer models with random weights, of each kind that the tests run on."""

from pathlib import Path
from typing import Any

import torch
import transformers

from llmkit.config.schema import ModelConfig
from llmkit.models.loading import load_model

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": 0,
}  # fmt: skip
ARCHITECTURES = {
    "llama": transformers.LlamaConfig(**SMALL),
    "qwen2": transformers.Qwen2Config(**SMALL),
    "qwen3": transformers.Qwen3Config(**SMALL, head_dim=8),
    "mistral": transformers.MistralConfig(**SMALL, sliding_window=5, head_dim=8),
    "gemma2": transformers.Gemma2Config(**SMALL, head_dim=8, sliding_window=5, query_pre_attn_scalar=8),
    "gemma2_uncapped": transformers.Gemma2Config(
        **SMALL, head_dim=8, sliding_window=5, query_pre_attn_scalar=8, attn_logit_softcapping=None
    ),
    "gemma3": transformers.Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=5, query_pre_attn_scalar=8),
    "phi3": transformers.Phi3Config(**SMALL),
    "gpt2": transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=1024),
    "gpt_neox": transformers.GPTNeoXConfig(
        **{name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
    ),
    "qwen3_moe": transformers.Qwen3MoeConfig(
        **SMALL, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
}


def load_small(config: transformers.PretrainedConfig, directory: Path) -> Any:
    """The model of a configuration, loaded as runs load theirs."""
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return load_model(ModelConfig(path=str(directory)))
