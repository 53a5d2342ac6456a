"""Random models of two or so small layers, of many architectures, and engines over them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from llmkit.config.schema import DeviceConfig
from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.inference.native import Config, build
from llmkit.models.packed import ATTENTION
from llmkit.models.policy import Policy

COMMON: dict[str, Any] = {
    "vocab_size": 199,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ROUTED = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
NAMED = {"vocab_size": 199, "bos_token_id": 1, "eos_token_id": 2}

PACKED: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaConfig(**COMMON),
    "qwen2": lambda: hf.Qwen2Config(**COMMON),
    "qwen3": lambda: hf.Qwen3Config(**COMMON, head_dim=8),
    "mistral, window": lambda: hf.MistralConfig(**COMMON, head_dim=8, sliding_window=20),
    "gemma2, window and softcap": lambda: hf.Gemma2Config(
        **COMMON, head_dim=8, sliding_window=20, query_pre_attn_scalar=8, attn_logit_softcapping=2.0
    ),
    "gemma3, windows": lambda: hf.Gemma3TextConfig(
        **{**COMMON, "num_hidden_layers": 7}, head_dim=8, sliding_window=20
    ),
    "phi3": lambda: hf.Phi3Config(**COMMON),
    "gpt2": lambda: hf.GPT2Config(**NAMED, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "gpt-neox": lambda: hf.GPTNeoXConfig(**{k: v for k, v in COMMON.items() if k != "num_key_value_heads"}),
    "qwen3-moe": lambda: hf.Qwen3MoeConfig(**COMMON, **ROUTED, head_dim=8),
    "deepseek-v3, latent attention": lambda: hf.DeepseekV3Config(
        **{**COMMON, "num_key_value_heads": 4}, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=12, n_routed_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1,
        moe_intermediate_size=16, first_k_dense_replace=1,
    ),
    "olmo2": lambda: hf.Olmo2Config(**COMMON),
    "gpt-oss, sinks": lambda: hf.GptOssConfig(
        **COMMON, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=20,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    ),
    "cohere2": lambda: hf.Cohere2Config(**{**COMMON, "num_hidden_layers": 4}, sliding_window=20),
}  # fmt: skip
ONE_BY_ONE: dict[str, Callable[[], Any]] = {
    "qwen3-next, gated and linear attention": lambda: hf.Qwen3NextConfig(
        **{**COMMON, "num_hidden_layers": 4}, **ROUTED, head_dim=8, shared_expert_intermediate_size=16,
        linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
    ),
    "mamba": lambda: hf.MambaConfig(**NAMED, pad_token_id=0, hidden_size=32, num_hidden_layers=2, state_size=8),
    "bloom": lambda: hf.BloomConfig(**NAMED, hidden_size=32, n_layer=2, n_head=4),
}  # fmt: skip


def make_model(make_config: Callable[[], Any]) -> Any:
    """A model with weights large enough that its tokens are not all alike, loaded as a policy's would be."""
    config = make_config()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    if model._supports_attention_backend and config.model_type not in ("gemma2", "gpt_oss"):
        model.config._attn_implementation = ATTENTION
    else:
        model.config._attn_implementation = "eager"
    return model.eval()


def policy_of(model: Any) -> Policy:
    return Policy(model, torch.device("cpu"), torch.float32)


def engine_of(model: Any, tokenizer: Any = None, **config: Any) -> ServingEngine:
    """An engine over a model."""
    device = DeviceConfig.model_validate({"device": "cpu"})
    context = EngineContext(model=None, device=device, policy=policy_of(model), tokenizer=tokenizer)  # type: ignore[arg-type]
    return build(Config(**{"runner": "packed", **config}), context)


def prompts(*lengths: int, vocabulary: int = 199) -> list[list[int]]:
    """Prompts of random tokens."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, vocabulary, (length,), generator=generator).tolist() for length in lengths]


def save_adapter(model: Any, directory: Path, *, seed: int, **options: Any) -> Any:
    """Save a random LoRA adapter of a model; returns the model with the adapter merged."""
    import copy
    import warnings

    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that transformers is changing
        torch.manual_seed(seed)
        wrapped = get_peft_model(
            copy.deepcopy(model),
            LoraConfig(**{"r": 4, "task_type": "CAUSAL_LM", "init_lora_weights": False, **options}),
        )
    wrapped.save_pretrained(directory)
    return wrapped.merge_and_unload().eval()
