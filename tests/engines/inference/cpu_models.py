"""Small random models of the families that the C++ step knows, and a way to drive it step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from llmkit.engines.inference.native.cpu.runner import CpuRunner
from llmkit.engines.inference.native.runner import BLOCK_SIZE, Step
from llmkit.models.policy import Policy

VOCAB_SIZE = 131
ODD_SIZES = {"hidden_size": 60, "intermediate_size": 100}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        "head_dim": 18,
        **ODD_SIZES,
    },
    "mistral": {"sliding_window": 9, "head_dim": 64, "num_attention_heads": 8, "num_key_value_heads": 1},
    "qwen2": {"hidden_size": 128, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"head_dim": 128, "tie_word_embeddings": True, "num_key_value_heads": 4},
    "phi3": {"hidden_size": 320, "partial_rotary_factor": 0.5, "pad_token_id": 0, "num_key_value_heads": 4},
    "smollm3": {"no_rope_layers": [1, 0, 1], "head_dim": 32, "pad_token_id": 0},
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
        "head_dim": 32,
    },
    "seed_oss": {"attention_bias": True, "attention_out_bias": True, "head_dim": 32},
    "ministral": {
        "sliding_window": 6,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "head_dim": 48,
    },
}
"""What each family's model has beside `SIZES`; head dimensions from 16 to 128, whole vectors and not."""
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def make_model(family: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """A random model whose logits are far apart, with biases and norms that are not trivial."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **FAMILIES.get(family, {}), **options})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif parameter.dim() == 1:
                parameter.normal_(0, 0.3)
            else:
                parameter.normal_(0, 0.12)
    return model.to(dtype)


def make_policy(model: Any, compute_dtype: torch.dtype = torch.float32) -> Policy:
    """A policy on the CPU."""
    return Policy(model, torch.device("cpu"), compute_dtype)


def make_step(
    parts: Sequence[tuple[Sequence[int], int, Sequence[int]]], logit_positions: Sequence[int] | None = None
) -> Step:
    """A step of sequences, each given by its tokens, the position of the first of them, and its blocks.

    Args:
        logit_positions: the last token of each sequence when None.
    """
    lengths = [len(tokens) for tokens, _, _ in parts]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    longest = max(len(blocks) for _, _, blocks in parts)
    return Step(
        token_ids=torch.tensor([token for tokens, _, _ in parts for token in tokens]),
        positions=torch.cat([torch.arange(first, first + len(tokens)) for tokens, first, _ in parts]),
        query_starts=starts.int(),
        block_tables=torch.tensor([[*b, *[0] * (longest - len(b))] for _, _, b in parts], dtype=torch.int32),
        logit_positions=starts[1:] - 1 if logit_positions is None else torch.tensor(logit_positions, dtype=torch.int64),
        adapters=[None] * len(parts),
    )


def scattered_blocks(num_sequences: int, num_tokens: int) -> list[list[int]]:
    """Blocks for each sequence, neither in order nor side by side."""
    each = -(-num_tokens // BLOCK_SIZE)
    order = torch.randperm(num_sequences * each, generator=torch.Generator().manual_seed(1)).tolist()
    return [order[s * each : (s + 1) * each] for s in range(num_sequences)]


def prompts(*lengths: int) -> list[list[int]]:
    """Random prompts."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, VOCAB_SIZE, (length,), generator=generator).tolist() for length in lengths]


def greedy(runner: CpuRunner, given: Sequence[list[int]], num_new: int, chunk: int) -> list[list[int]]:
    """Greedy completions of prompts that enter in chunks while those before them decode already."""
    blocks = scattered_blocks(len(given), max(map(len, given)) + num_new)
    tokens, done = [list(prompt) for prompt in given], [0] * len(given)
    while any(len(t) < len(p) + num_new for t, p in zip(tokens, given, strict=True)):
        rows = [s for s in range(len(given)) if len(tokens[s]) < len(given[s]) + num_new]
        spans = [tokens[s][done[s] : done[s] + chunk] for s in rows]
        logits = runner.forward(make_step([(span, done[s], blocks[s]) for s, span in zip(rows, spans, strict=True)]))
        for row, (s, span) in enumerate(zip(rows, spans, strict=True)):
            done[s] += len(span)
            if done[s] == len(tokens[s]):
                tokens[s].append(int(logits[row].argmax()))
    return [t[len(p) :] for t, p in zip(tokens, given, strict=True)]


def reference_greedy(model: Any, prompt: list[int], num_new: int) -> list[int]:
    """What transformers' `generate` adds to a prompt."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_new, do_sample=False, pad_token_id=0
    )
    return out[0, len(prompt) :].tolist()


@torch.no_grad()
def reference_logits(model: Any, prompt: Sequence[int]) -> Tensor:
    """[T, V] logits of transformers."""
    return model(torch.tensor([prompt])).logits[0]
