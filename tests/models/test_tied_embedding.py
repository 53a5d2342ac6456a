"""A tied embedding's gradient, which head and embedding give together."""

from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from llmkit.config.parallel import ParallelConfig
from llmkit.data.collate import collate
from llmkit.distributed.world import world
from llmkit.models import shorter, tied_embedding
from llmkit.models.linear_logprobs import linear_logprobs
from llmkit.models.logprobs import token_logprobs
from llmkit.models.packed import ATTENTION
from llmkit.models.policy import Policy
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


def gradient(model: Any, given: bool, times: int = 2) -> torch.Tensor:
    """Of a few micro-batches.

    Args:
        given: whether the head knows the factors of the loss beforehand.
    """
    batch = collate([Sample([3, 4, 5, 4, 3], [0, 1, 1, 0, 1], Source("rows", 1))])
    scales = torch.tensor([1.0, -2.0, 0.5])
    for _ in range(times):
        found = token_logprobs(model, batch, loss_scales=scales if given else None)
        (found.logprobs * scales).sum().backward()
    found = model.get_input_embeddings().weight.grad
    assert found is not None
    return found


@pytest.fixture
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tied_embedding, "LARGE_BYTES", 0)


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("given", [True, False])
def test_head_and_embedding_give_one_gradient(given: bool):
    wanted = gradient(make_model(), given)
    model = make_model()
    shorter.prepare(model)
    assert "forward" in vars(model.get_input_embeddings())
    torch.testing.assert_close(gradient(model, given), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_large")
def test_there_is_no_second_matrix(monkeypatch: pytest.MonkeyPatch):
    model = make_model()
    shorter.prepare(model)
    weight = model.get_input_embeddings().weight
    left: list[int] = []
    leave = tied_embedding.Meeting.leave

    def note(self: tied_embedding.Meeting, found: torch.Tensor | None) -> None:
        assert found is not None
        left.append(found.data_ptr())
        leave(self, found)

    monkeypatch.setattr(tied_embedding.Meeting, "leave", note)
    gradient(model, True, times=1)
    assert left == [weight.grad.data_ptr()]


@pytest.mark.usefixtures("_large")
def test_the_embedding_alone_gives_a_whole_gradient():
    model = make_model()
    tied_embedding.prepare(model)
    embedding = model.get_input_embeddings()
    embedding(torch.tensor([7, 7, 8])).sum().backward()
    assert embedding.weight.grad.sum(dim=1)[[6, 7, 8]].tolist() == [0.0, 64.0, 32.0]


@pytest.mark.usefixtures("_large")
def test_a_head_whose_gradient_is_gone_leaves_the_embedding_its_own():
    # Two forward passes before the first backward pass: the second embedding stands where the first head looks.
    model, wanted = make_model(), make_model()
    tied_embedding.prepare(model)
    found = []
    for one in (model, wanted):
        rows = [one.get_input_embeddings()(torch.tensor([number, number])) for number in (3, 4)]
        for hidden in rows:
            logprobs = linear_logprobs(hidden, one.lm_head.weight, None, torch.tensor([1, 2])).logprobs
            logprobs.sum().backward()
        found.append(one.lm_head.weight.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_large")
def test_padding_gets_nothing():
    model = make_model()
    embedding = model.get_input_embeddings()
    embedding.padding_idx = 8
    tied_embedding.prepare(model)
    embedding(torch.tensor([7, 8])).sum().backward()
    assert embedding.weight.grad.sum(dim=1)[[7, 8]].tolist() == [32.0, 0.0]


@pytest.mark.parametrize("tied", [True, False])
def test_small_and_untied_embeddings_stay_as_they_are(tied: bool):
    model = make_model(tied=tied)
    shorter.prepare(model)
    assert "forward" not in vars(model.get_input_embeddings())


@pytest.mark.usefixtures("_large")
def test_a_run_of_one_process_keeps_it():
    policy = Policy(make_model(), torch.device("cpu"), torch.float32)
    policy.divide(ParallelConfig(), world())
    assert "forward" in vars(policy.model.get_input_embeddings())


@pytest.mark.usefixtures("_large")
def test_a_model_that_will_be_divided_goes_its_own_way_again():
    model = make_model()
    tied_embedding.prepare(model)
    tied_embedding.undo(model)
    assert "forward" not in vars(model.get_input_embeddings())
