"""What a file says of its model besides the weights: sizes, rotary positions, norms."""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llmkit.convert.gguf_files.families import Family
from llmkit.errors import ConfigError

YARN_EXTRAS = ("attention_factor", "mscale", "mscale_all_dim")
"""Settings of transformers' yarn which llama.cpp computes by itself."""


def add_metadata(writer: Any, config: Any, family: Family, name: str, recipe: str) -> None:
    """Say it.

    Args:
        writer: gguf's.
        config: of transformers.
        family: of the model.
        name: that people call it.
        recipe: mixture of types.

    Raises:
        ConfigError: the rotary positions are of a kind that the format does not have.
    """
    import gguf

    label = "ALL_F32" if recipe == "f32" else f"MOSTLY_{recipe.upper()}"
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[label])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_rope_dimension_count(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_rope(writer, config)
    if family.name in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if value := getattr(config, key, None):
                getattr(writer, f"add_{key}")(value)


def head_size(config: Any) -> int:
    """Numbers of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rope_factors(config: Any) -> Tensor | None:
    """By what Llama 3.1 divides the frequencies of its rotary positions; None for other kinds.

    Returns: [head_size / 2] float32.
    """
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    exponents = torch.arange(0, head_size(config), 2, dtype=torch.float32) / head_size(config)
    return 1.0 / rope["rope_theta"] ** exponents / slowed


def notes_on(config: Any) -> list[str]:
    """What llama.cpp will do in another way than transformers."""
    window = getattr(config, "sliding_window", None)
    if window and config.architectures[0] == "MistralForCausalLM" and window < config.max_position_embeddings:
        return [f"llama.cpp looks at all of the context and not at the last {window} tokens (sliding_window)"]
    if getattr(config, "use_sliding_window", False):
        return ["llama.cpp looks at all of the context in every layer (use_sliding_window)"]
    return []


def _rope(config: Any) -> dict[str, Any]:
    """Rotary positions of the layers that see all of the context."""
    rope = config.rope_parameters
    return rope.get("full_attention", rope)


def _add_rope(writer: Any, config: Any) -> None:
    import gguf

    rope = _rope(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    local = config.rope_parameters.get("sliding_attention")
    if local is not None:
        writer.add_rope_freq_base_swa(local["rope_theta"])
    match rope["rope_type"]:
        case "default" | "llama3":
            pass  # the factors of the second are a tensor
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            if changed := [key for key in YARN_EXTRAS if rope.get(key) is not None]:
                raise ConfigError(f"--to gguf: {changed[0]} of the rotary positions' yarn has no place in the format")
            original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
            writer.add_rope_scaling_orig_ctx_len(original)
            for key in ("beta_fast", "beta_slow"):
                if rope.get(key) is not None:
                    getattr(writer, f"add_rope_scaling_yarn_{key}")(rope[key])
        case other:
            raise ConfigError(f"--to gguf: rotary positions of type {other!r} have no place in the format")
