"""A packed forward gives every sequence what it would get alone."""

import pytest
import torch
import transformers

from llmkit.config.schema import ModelConfig
from llmkit.data.collate import collate
from llmkit.models.loading import load_model
from llmkit.models.logprobs import token_logprobs
from llmkit.models.packed import LONGEST_ROW, sequence_ids, supports_packing
from llmkit.types import Sample, Source

SMALL = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": 0}  # fmt: skip
ARCHITECTURES = {
    "llama": transformers.LlamaConfig(**SMALL),
    "qwen2": transformers.Qwen2Config(**SMALL),
    "qwen3": transformers.Qwen3Config(**SMALL, head_dim=8),
    "mistral": transformers.MistralConfig(**SMALL, sliding_window=5, head_dim=8),
    "gemma2": transformers.Gemma2Config(**SMALL, head_dim=8, sliding_window=5, query_pre_attn_scalar=8),
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


@pytest.fixture(params=list(ARCHITECTURES), scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    directory = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[request.param]).save_pretrained(directory)
    return load_model(ModelConfig(path=str(directory)))


def samples(lengths: list[int]) -> list[Sample]:
    generator = torch.Generator().manual_seed(1)
    return [
        Sample(
            torch.randint(1, 97, (length,), generator=generator).tolist(),
            [0.0, 0.0] + [1.0] * (length - 2),
            Source("t", 1),
        )
        for length in lengths
    ]


@torch.no_grad()
def test_packed_logprobs_equal_those_of_each_sequence_alone(model: torch.nn.Module):
    rows = samples([9, 3, 14, 6])
    packed, entropies, _ = token_logprobs(model, collate(rows), entropy="value")
    alone = []
    for row in rows:
        logits = model(torch.tensor([row.token_ids]), use_cache=False).logits[0].float()
        targets = torch.tensor(row.token_ids[2:])
        alone.append(logits[1:-1].log_softmax(-1).gather(1, targets[:, None])[:, 0])
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-5, atol=1e-5)
    assert entropies is not None
    assert entropies.shape == packed.shape


def test_gradients_equal_those_of_each_sequence_alone(model: torch.nn.Module):
    rows = samples([7, 12])
    model.zero_grad()
    token_logprobs(model, collate(rows))[0].sum().backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for row in rows:
        token_logprobs(model, collate([row]))[0].sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(packed[name], parameter.grad, rtol=1e-4, atol=1e-5)
    model.zero_grad()


@torch.no_grad()
def test_long_sequences_take_the_fused_kernel_with_the_same_result(tmp_path):
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(ARCHITECTURES["qwen3"]).save_pretrained(tmp_path)
    model = load_model(ModelConfig(path=str(tmp_path)))
    assert supports_packing(model)
    rows = samples([LONGEST_ROW + 20, 5])
    packed = token_logprobs(model, collate(rows))[0]
    alone = torch.cat([token_logprobs(model, collate([row]))[0] for row in rows])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_sequence_ids():
    assert sequence_ids(collate(samples([3, 4]))).tolist() == [0, 0, 0, 1, 1, 1, 1]


@torch.no_grad()
def test_temperature_divides_the_logits(tmp_path):
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(ARCHITECTURES["llama"]).save_pretrained(tmp_path)
    model = load_model(ModelConfig(path=str(tmp_path)))
    (row,) = samples([6])
    logits = model(torch.tensor([row.token_ids])).logits[0] / 0.5
    expected = logits[1:-1].log_softmax(-1).gather(1, torch.tensor(row.token_ids[2:])[:, None])[:, 0]
    torch.testing.assert_close(token_logprobs(model, collate([row]), temperature=0.5)[0], expected)
