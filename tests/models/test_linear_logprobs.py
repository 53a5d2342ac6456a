"""The fused head against the whole distribution, which it never makes."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from llmkit.models import chunked_head
from llmkit.models import linear_logprobs as module
from llmkit.models.linear_logprobs import linear_logprobs
from llmkit.models.scoring import PLAIN, Scoring, TokenLogprobs

SCORINGS = [
    PLAIN,
    Scoring(temperature=0.7),
    Scoring(scale=0.25),
    Scoring(softcap=1.5),
    Scoring(scale=2.0, softcap=3.0, temperature=1.3),
]


@pytest.fixture(autouse=True, params=["one chunk", "kept chunks", "some kept", "chunks again"])
def _budget(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 2 rows of 11 scores, or all rows at once; logits kept for the backward pass, or not."""
    if request.param != "one chunk":
        monkeypatch.setattr(chunked_head, "CHUNK_BYTES", 2 * 11 * 4)
    if request.param in ("some kept", "chunks again"):
        monkeypatch.setattr(module, "KEPT_BYTES", 3 * 11 * 8 if request.param == "some kept" else 0)


def inputs(dtype: torch.dtype = torch.float64, rows: int = 5, bias: bool = True) -> tuple[Tensor, Tensor, Any, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(rows, 4, dtype=dtype, requires_grad=True)
    weight = torch.randn(11, 4, dtype=dtype, requires_grad=True)
    offset = torch.randn(11, dtype=dtype, requires_grad=True) if bias else None
    return hidden, weight, offset, torch.randint(0, 11, (rows,))


def plainly(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scoring: Scoring) -> TokenLogprobs:
    """By the definitions, with all logits."""
    logits = F.linear(hidden, weight, bias) * scoring.scale
    if scoring.softcap:
        logits = scoring.softcap * torch.tanh(logits / scoring.softcap)
    logs = (logits / scoring.temperature).log_softmax(-1)
    return TokenLogprobs(logs.gather(1, targets[:, None])[:, 0], -(logs.exp() * logs).sum(-1), logs.mean(-1))


def test_two_tokens_by_hand():
    # scores 0 and log 3: probabilities 1/4 and 3/4
    found = linear_logprobs(
        torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [math.log(3)]]), None, torch.tensor([0, 1]),
        entropy="value", mean_logprobs=True,
    )  # fmt: skip
    assert found.logprobs.tolist() == pytest.approx([math.log(0.25), math.log(0.75)])
    assert found.entropy is not None
    assert found.entropy.tolist() == pytest.approx([-0.25 * math.log(0.25) - 0.75 * math.log(0.75)] * 2)
    assert found.mean_logprobs is not None
    assert found.mean_logprobs.tolist() == pytest.approx([(math.log(0.25) + math.log(0.75)) / 2] * 2)


@pytest.mark.parametrize("scoring", SCORINGS)
def test_values_are_those_of_the_whole_distribution(scoring: Scoring):
    hidden, weight, bias, targets = inputs()
    found = linear_logprobs(hidden, weight, bias, targets, scoring=scoring, entropy="gradient", mean_logprobs=True)
    for value, expected in zip(found, plainly(hidden, weight, bias, targets, scoring), strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("wanted", ["logprobs", "entropy", "mean_logprobs", "all"])
def test_gradients_are_those_of_differences(wanted: str, scoring: Scoring):
    hidden, weight, bias, targets = inputs()

    def run(*parameters: Tensor) -> Any:
        found = linear_logprobs(*parameters, targets, scoring=scoring, entropy="gradient", mean_logprobs=True)
        return tuple(found) if wanted == "all" else getattr(found, wanted)

    assert torch.autograd.gradcheck(run, (hidden, weight, bias))


@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_frozen_head_leaves_the_same_gradient_to_the_rest(scoring: Scoring):
    hidden, weight, bias, targets = inputs()
    weight, bias = weight.detach(), bias.detach()
    assert torch.autograd.gradcheck(
        lambda states: linear_logprobs(states, weight, bias, targets, scoring=scoring).logprobs, (hidden,)
    )


def test_only_a_head_that_trains_gets_a_gradient_when_nothing_below_does():
    hidden, weight, bias, targets = inputs()
    assert torch.autograd.gradcheck(
        lambda matrix: linear_logprobs(hidden.detach(), matrix, bias.detach(), targets).logprobs, (weight,)
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kept", "c"), [(True, 1.0), (True, -2.5), (False, 1.0)])
def test_a_known_scale_changes_no_gradient_and_a_wrong_one_neither(kept: bool, c: float, bias: bool):
    scales = torch.tensor([0.5, 1.0, 0.0, -2.0, 0.25], dtype=torch.float64)
    factors = c * scales if kept else torch.tensor([1.0, 1.0, 1.0, 3.0, 1.0], dtype=torch.float64)
    gradients = []
    for known in (scales, None):
        hidden, weight, offset, targets = inputs(bias=bias)
        found = linear_logprobs(hidden, weight, offset, targets, loss_scales=known)
        (factors * found.logprobs).sum().backward()
        gradients.append([hidden.grad, weight.grad, *([offset.grad] if offset is not None else [])])
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize("known", [True, False])
def test_a_retained_graph_gives_the_same_gradient_again(known: bool):
    hidden, weight, _, targets = inputs(bias=False)
    scales = torch.full((5,), 0.2, dtype=torch.float64)
    loss = 3 * (scales * linear_logprobs(hidden, weight, None, targets, loss_scales=scales if known else None)[0]).sum()
    first, second = (torch.autograd.grad(loss, (hidden, weight), retain_graph=True) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)


def test_without_gradients_nothing_is_kept():
    hidden, weight, bias, targets = inputs()
    with torch.no_grad():
        found = linear_logprobs(hidden, weight, bias, targets, entropy="gradient")
    assert not found.logprobs.requires_grad
    assert found.logprobs.grad_fn is None


def test_tied_embeddings_add_both_gradients():
    _, weight, _, targets = inputs()
    ids = torch.tensor([3, 1, 4, 1, 5])
    found = linear_logprobs(weight[ids], weight, None, targets).logprobs.sum()
    expected = plainly(weight[ids], weight, None, targets, PLAIN).logprobs.sum()
    torch.testing.assert_close(*(torch.autograd.grad(value, weight)[0] for value in (found, expected)))


@pytest.mark.parametrize("known", [True, False])
def test_half_precision_products_have_a_float32_epilogue(known: bool):
    hidden, weight, _, targets = inputs(torch.float32, bias=False)
    scales = torch.full((5,), 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_logprobs(hidden, weight, None, targets, loss_scales=scales if known else None).logprobs
    assert found.dtype == torch.float32
    rounded = F.linear(hidden.bfloat16(), weight.bfloat16()).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, rounded, rtol=1e-6, atol=1e-6)
    (found * scales).sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    expected = torch.autograd.grad((plainly(hidden, weight, None, targets, PLAIN).logprobs * scales).sum(), weight)[0]
    torch.testing.assert_close(weight.grad, expected, rtol=0.05, atol=0.01)


def test_no_row_at_all_gives_nothing_and_no_gradient():
    hidden, weight, bias, targets = inputs(rows=0)
    found = linear_logprobs(hidden, weight, bias, targets, entropy="value")
    assert found.logprobs.shape == (0,)
    found.logprobs.sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() == 0


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 9), vocabulary=st.integers(2, 30), seed=st.integers(0, 1000))
def test_float32_agrees_to_rounding(rows: int, vocabulary: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 6, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, 6, generator=generator, requires_grad=True)
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    found = linear_logprobs(hidden, weight, None, targets).logprobs
    expected = plainly(hidden, weight, None, targets, PLAIN).logprobs
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(found.sum(), (hidden, weight)),
        torch.autograd.grad(expected.sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
