"""Random models of usual shapes, for benchmarks that need no words."""

from pathlib import Path
from typing import Any

from llmkit.errors import ConfigError

SHAPES = {
    "5m": (256, 5, 4, 2, 64, 768, 4096),
    "20m": (384, 10, 6, 2, 64, 1152, 8192),
    "60m": (512, 16, 8, 4, 64, 1536, 16384),
    "150m": (768, 18, 12, 4, 64, 2304, 32768),
    "600m": (1024, 28, 16, 8, 128, 3072, 151936),
}
"""Hidden size, layers, heads, key heads, their width, inner size and vocabulary of Qwen3 models; the last is 0.6B's."""


def model_directory(model: str, directory: Path, dtype: str = "bfloat16") -> Path:
    """The model's directory; a shape is made there with random weights.

    Args:
        model: a shape's name, or a directory.
        directory: to make it in.
        dtype: of the weights that are made.
    Raises:
        ConfigError: there is neither a shape nor a directory of that name.
    """
    if model not in SHAPES:
        path = Path(model).expanduser()
        if not (path / "config.json").is_file():
            raise ConfigError(f"--model {model}: no directory with a model; shapes: {', '.join(SHAPES)}")
        return path
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    hidden, layers, heads, kv_heads, width, inner, vocabulary = SHAPES[model]
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=width,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.05,  # far enough from 0 that tokens differ
        bos_token_id=0,
        eos_token_id=0,
    )
    path = directory / f"model-{model}"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: Any = Qwen3ForCausalLM(config)
        made.to(getattr(torch, dtype)).save_pretrained(path)
    return path
