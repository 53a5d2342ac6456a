"""What a model says about tokens, against the whole distribution."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmkit.data.collate import collate
from llmkit.models.logprobs import token_logprobs
from llmkit.testing.tiny import tiny_model
from llmkit.types import Batch, Sample, Source


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model()).eval()


@pytest.fixture
def batch() -> Batch:
    return collate([Sample([5, 9, 60, 61, 62], [0.0, 0.0, 1.0, 1.0, 1.0], Source("rows.jsonl", 1))])


def distribution(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """[3, V] log-probabilities at the places of the supervised tokens."""
    return model(batch.token_ids[None], use_cache=False).logits[0, 1:4].log_softmax(-1)


def test_nothing_more_than_asked_for_is_computed(model: torch.nn.Module, batch: Batch):
    found = token_logprobs(model, batch)
    assert (found.entropy, found.mean_logprobs) == (None, None)


def test_the_mean_is_that_over_the_whole_vocabulary(model: torch.nn.Module, batch: Batch):
    found = token_logprobs(model, batch, mean_logprobs=True)
    every = distribution(model, batch)
    assert found.mean_logprobs is not None
    torch.testing.assert_close(found.mean_logprobs, every.mean(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.logprobs, every.gather(1, batch.token_ids[2:, None])[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", ["entropy", "mean_logprobs"])
def test_the_gradient_is_that_of_the_whole_distribution(wanted: str, model: torch.nn.Module, batch: Batch):
    weight = model.get_input_embeddings().weight  # type: ignore[operator]
    found = token_logprobs(model, batch, entropy="gradient", mean_logprobs=True)
    every = distribution(model, batch)
    expected = -(every.exp() * every).sum(-1) if wanted == "entropy" else every.mean(-1)
    gradients = [torch.autograd.grad(value.sum(), weight)[0] for value in (getattr(found, wanted), expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    assert gradients[0].abs().max() > 1e-6


def test_a_measured_entropy_has_no_gradient(model: torch.nn.Module, batch: Batch):
    found = token_logprobs(model, batch, entropy="value")
    assert found.entropy is not None
    assert not found.entropy.requires_grad
    assert found.logprobs.requires_grad
