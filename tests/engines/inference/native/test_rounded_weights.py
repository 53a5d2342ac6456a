"""Copies of matrices in the compute type: the numbers of autocast, and the weights of the last update."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from llmkit.engines.inference.native.generating import generating
from llmkit.engines.inference.native.rounded_weights import RoundedWeights
from llmkit.models.policy import Policy

from .tiny import PACKED, make_model

TOKENS = torch.arange(3, 15)[None]


@pytest.fixture(params=["llama", "qwen3-moe", "gpt2"])
def policy(request: pytest.FixtureRequest) -> Policy:
    return Policy(make_model(PACKED[request.param]), torch.device("cpu"), torch.bfloat16)


@torch.inference_mode()
def logits_of(policy: Policy, weights: RoundedWeights | None = None) -> Tensor:
    with generating(policy):
        if weights is None:
            return policy.model(TOKENS, use_cache=False).logits
        with weights.applied():
            return policy.model(TOKENS, use_cache=False).logits


def test_logits_are_those_of_autocast_to_the_bit(policy: Policy):
    assert torch.equal(logits_of(policy, RoundedWeights(policy, least_numbers=0)), logits_of(policy))


def test_new_weights_count_from_when_they_are_announced_and_other_threads_have_them_at_once(policy: Policy):
    weights, before = RoundedWeights(policy, least_numbers=0), logits_of(policy)
    logits_of(policy, weights)
    head = policy.model.get_output_embeddings().weight
    with torch.no_grad():
        head.copy_(head.roll(1, 0))
    found: list[Any] = []
    with weights.applied():
        thread = threading.Thread(target=lambda: found.append(logits_of(policy)))
        thread.start()
        thread.join()
    assert not torch.equal(found[0], before)
    assert not torch.equal(logits_of(policy, weights), found[0])
    weights.weights_changed()
    assert torch.equal(logits_of(policy, weights), found[0])
    assert torch.equal(logits_of(policy), found[0])
