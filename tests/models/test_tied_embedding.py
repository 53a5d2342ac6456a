"""A tied embedding's gradient, which head and embedding give together."""

from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from llmkit.data.collate import collate
from llmkit.models import shorter, tied_embedding
from llmkit.models.logprobs import token_logprobs
from llmkit.models.packed import ATTENTION
from llmkit.types import Sample, Source


def make_model(*, tied: bool = True) -> Any:
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, vocab_size=500, tie_word_embeddings=tied,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    model.config._attn_implementation = ATTENTION
    return model


def gradient(model: Any) -> torch.Tensor:
    batch = collate([Sample([3, 4, 5, 4, 3], [0, 1, 1, 0, 1], Source("rows", 1))])
    for _ in range(2):  # a second micro-batch is added
        (-token_logprobs(model, batch).logprobs.sum()).backward()
    found = model.get_input_embeddings().weight.grad
    assert found is not None
    return found


def test_head_and_embedding_give_one_ordinary_gradient(monkeypatch: pytest.MonkeyPatch):
    wanted = gradient(make_model())
    monkeypatch.setattr(tied_embedding, "LARGE_BYTES", 0)
    model = make_model()
    shorter.prepare(model)
    assert model.get_input_embeddings().sparse
    found = gradient(model)
    assert found.layout == torch.strided
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_the_embedding_alone_gives_rows_which_are_made_whole(monkeypatch: pytest.MonkeyPatch):
    from llmkit.distributed.gradients import Gradients
    from llmkit.distributed.world import world

    monkeypatch.setattr(tied_embedding, "LARGE_BYTES", 0)
    model = make_model()
    tied_embedding.prepare(model)
    weight = model.get_input_embeddings().weight
    model.get_input_embeddings()(torch.tensor([7, 7, 8])).sum().backward()
    assert weight.grad is not None
    assert weight.grad.is_sparse
    Gradients([weight], world()).make_dense()
    assert weight.grad.sum(dim=1)[[6, 7, 8]].tolist() == [0.0, 64.0, 32.0]


@pytest.mark.parametrize("tied", [True, False])
def test_small_and_untied_embeddings_stay_as_they_are(tied: bool):
    model = make_model(tied=tied)
    shorter.prepare(model)
    assert not model.get_input_embeddings().sparse


def test_a_model_that_will_be_divided_gives_whole_gradients_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tied_embedding, "LARGE_BYTES", 0)
    model = make_model()
    tied_embedding.prepare(model)
    tied_embedding.undo(model)
    assert not model.get_input_embeddings().sparse
