"""Norms in one step against those that modeling code spells out."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from llmkit.models import norms
from llmkit.models.norms import prepare, rms_norm

from .architectures import ARCHITECTURES, load_small


def test_by_hand():
    # The mean square of 3 and 4 is 12.5; with weights 1 and 2: 3 / sqrt(12.5) and 8 / sqrt(12.5)
    found = rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), 0.0)
    torch.testing.assert_close(found, torch.tensor([[0.8485281, 2.2627417]]))


def test_the_gradient_is_that_of_the_formula():
    hidden = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, w: rms_norm(h, w, 1e-6), (hidden, weight))


def test_half_precision_computes_in_float32_even_under_autocast():
    torch.manual_seed(0)
    hidden, weight = torch.randn(4, 256).bfloat16(), torch.rand(256) + 0.5
    with torch.autocast("cpu", torch.bfloat16):
        found = rms_norm(hidden, weight, 1e-6)
    assert found.dtype == torch.bfloat16
    expected = rms_norm(hidden.double(), weight.double(), 1e-6)
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=0)


@pytest.mark.parametrize("name", ["qwen3", "llama", "gemma3", "gpt2"])
def test_a_model_says_the_same_as_before(name: str, tmp_path: Any):
    model = load_small(ARCHITECTURES[name], tmp_path)
    ids = torch.arange(1, 20)[None]
    before = model(ids).logits
    before.square().mean().backward()
    gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    prepare(model)
    prepare(model)
    after = model(ids).logits
    after.square().mean().backward()
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-4, atol=1e-6)


def test_a_norm_of_another_form_stays_as_it_is():
    holder = nn.Sequential(LlamaRMSNorm(8), Gemma3RMSNorm(8), nn.RMSNorm(8))
    assert [norms._is_plain(module) for module in holder] == [True, False, False]


def test_under_autocast_layers_pass_on_half_precision(tmp_path: Any):
    model = load_small(ARCHITECTURES["qwen3"], tmp_path)
    prepare(model)
    seen = []
    model.model.layers[1].register_forward_hook(lambda *args: seen.append(args[2].dtype))
    model(torch.arange(1, 20)[None])
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.arange(1, 20)[None])
    assert seen == [torch.float32, torch.bfloat16]


def test_a_copy_has_norms_of_its_own(tmp_path: Any):
    model = load_small(ARCHITECTURES["llama"], tmp_path)
    prepare(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.model.norm.weight.zero_()
    assert not copied(torch.arange(1, 5)[None]).logits.any()
    assert model(torch.arange(1, 5)[None]).logits.any()
