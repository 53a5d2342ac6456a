"""How much memory tokens take in a KV cache."""

from collections.abc import Mapping
from typing import Any

GB = 10**9
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def cache_bytes_per_token(architecture: Mapping[str, Any], dtype: str) -> int | None:
    """Bytes that a token takes in the KV cache; None where the configuration does not tell."""
    heads = architecture.get("num_key_value_heads") or architecture.get("num_attention_heads")
    layers, hidden = architecture.get("num_hidden_layers"), architecture.get("hidden_size")
    if not (heads and layers and hidden):
        return None
    head_size = architecture.get("head_dim") or hidden // architecture["num_attention_heads"]
    written = str(architecture.get("dtype") or "bfloat16") if dtype == "auto" else dtype
    return 2 * layers * heads * head_size * DTYPE_BYTES.get(written, 4)
