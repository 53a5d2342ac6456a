"""The compiled loops against PyTorch's own operations, and what stands in for them where they cannot be compiled."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from llmkit.data.collate import collate, collate_groups
from llmkit.models import shorter
from llmkit.models.compiled_attention import Piece, attend_in_pieces
from llmkit.models.gates import silu_gate
from llmkit.models.kernels import library
from llmkit.models.kernels.scoring import score_rows
from llmkit.models.logprobs import token_logprobs
from llmkit.models.norm_rotary import norm_rotate
from llmkit.models.packed import ATTENTION
from llmkit.models.scoring import Scoring
from llmkit.types import Batch, Sample, Source

pytestmark = pytest.mark.skipif(library.library() is None, reason="needs a C++ compiler")

KINDS = {torch.float32: 2e-6, torch.bfloat16: 8e-3}
"""Types, and how far from each other two ways of rounding may lead."""


def numbers(*shape: int, seed: int = 0, kind: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(kind)


def gradients(run: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """What a function of tensors gives, and its gradients by them."""
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    output = run(*leaves)
    output.backward(numbers(*output.shape, seed=9, kind=output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def assert_alike(found: list[Tensor], wanted: list[Tensor], kind: torch.dtype) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other.double()).norm() <= KINDS[kind] * other.double().norm()


@pytest.mark.parametrize("kind", KINDS)
def test_gates(kind: torch.dtype):
    # 33 * 1001 is no multiple of what a vector or a piece of work holds
    gate, up = (4 * numbers(33, 1001, seed=seed, kind=kind) for seed in (1, 2))
    wide = [one.double() for one in gradients(lambda a, b: F.silu(a) * b, gate.double(), up.double())]
    assert_alike(gradients(silu_gate, gate, up), wide, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("norms", [False, True])
def test_norms_and_positions(kind: torch.dtype, turns: bool, norms: bool):
    if not (norms or turns):
        return
    states, weight = numbers(150, 3, 48, seed=1, kind=kind), 1 + numbers(48, seed=2) / 4
    angles = numbers(150, 24, seed=3).repeat(1, 2)
    turning = (angles.cos().to(kind), angles.sin().to(kind)) if turns else None

    def plainly(states: Tensor, weight: Tensor) -> Tensor:
        if norms:
            states = weight * states / (states.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        if turning is None:
            return states
        one, other = states.chunk(2, -1)
        cosines, sines = (angle.double()[:, None] for angle in turning)
        return states * cosines + torch.cat([-other, one], -1) * sines

    wanted = gradients(plainly, states.double(), weight.double())
    found = gradients(lambda one, other: norm_rotate(one, other if norms else None, 1e-5, turning), states, weight)
    assert_alike(found, wanted, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scoring", [Scoring(), Scoring(temperature=0.7), Scoring(2.0, softcap=3.0, temperature=1.3)])
def test_scores(kind: torch.dtype, scoring: Scoring):
    products, targets = 3 * numbers(7, 5003, kind=kind), torch.arange(7) * 700
    leaf = products.double().requires_grad_()
    scores = leaf * scoring.scale
    scores = scores if scoring.softcap is None else scoring.softcap * torch.tanh(scores / scoring.softcap)
    logs = (scores / scoring.temperature).log_softmax(-1)
    upstream = torch.linspace(-1, 2, 7)
    logs.gather(1, targets[:, None])[:, 0].backward(upstream.double())
    found = score_rows(products, targets, scoring, entropy=True, mean_logprobs=True, upstream=upstream)
    wanted = [logs.gather(1, targets[:, None])[:, 0], -(logs.exp() * logs).sum(-1), logs.mean(-1), leaf.grad]
    assert found.entropy is not None
    assert found.mean_logprobs is not None
    assert leaf.grad is not None
    assert_alike(
        [found.logprobs, found.entropy, found.mean_logprobs], [one.detach() for one in wanted[:3]], torch.float32
    )
    assert_alike([products], [leaf.grad], kind)


def test_scores_that_are_no_numbers_stay_so():
    products = numbers(4, 100)
    products[1, 7], products[2, 8], products[3, 9] = float("nan"), float("inf"), float("-inf")
    found = score_rows(products, torch.tensor([0, 0, 0, 9]), Scoring(), upstream=torch.ones(4))
    assert found.logprobs.isnan().tolist() == [False, True, True, False]
    assert found.logprobs[3] < -80
    assert products[1].isnan().any()
    assert products[2].isnan().any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (6, 2)])
def test_attention(kind: torch.dtype, heads: tuple[int, int]):
    # a prompt of 9 tokens with branches of 5, 1 and 3, a sequence of 150 and one of 2
    pieces = [
        Piece([slice(18, 168), slice(0, 9), slice(168, 170)]),
        Piece([slice(9, 14), slice(14, 15), slice(15, 18)], slice(0, 9)),
    ]
    sees = torch.zeros(170, 170, dtype=torch.bool)
    for piece in pieces:
        for span in piece.spans:
            sees[span, span] = True
            sees[span, piece.prompt] = True
    sees &= torch.ones(170, 170, dtype=torch.bool).tril()
    query, key, value = (numbers(1, heads[n > 0], 170, 16, seed=n, kind=kind) for n in range(3))

    def plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = (one.repeat_interleave(heads[0] // heads[1], 1) for one in (key, value))
        scores = (0.3 * query @ keys.mT).masked_fill(~sees, float("-inf"))
        return (scores.softmax(-1) @ values).transpose(1, 2)

    wanted = gradients(plainly, query.double(), key.double(), value.double())
    found = gradients(lambda q, k, v: attend_in_pieces(q, k, v, pieces, 0.3), query, key, value)
    assert_alike(found, wanted, kind)


MODELS = {
    "llama": lambda **sizes: LlamaForCausalLM(LlamaConfig(**sizes)),
    "qwen3": lambda **sizes: Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=16)),
}


def make_model(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 101}
    model = MODELS[name](**sizes, num_attention_heads=4, num_key_value_heads=2)
    model.config._attn_implementation = ATTENTION
    return model


def batch(shared: bool) -> Batch:
    row = torch.Generator().manual_seed(1)

    def draw(count: int) -> list[int]:
        return torch.randint(0, 101, (count,), generator=row).tolist()

    groups = []
    for length in (12, 30):
        prompt, answers = draw(length), [draw(n) for n in (3, 40, 17)]
        groups.append([Sample(prompt + one, [0.0] * length + [1.0] * len(one), Source("rows", 1)) for one in answers])
    return collate_groups(groups) if shared else collate([sample for group in groups for sample in group])


def outcome(model: torch.nn.Module, given: Batch, autocast: bool) -> list[Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = token_logprobs(model, given, entropy="value")
    found.logprobs.sum().backward()
    assert found.entropy is not None
    return [
        found.logprobs.detach(),
        found.entropy,
        *(one.grad.clone() for one in model.parameters() if one.grad is not None),
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_model_gives_the_same_with_and_without(
    name: str, shared: bool, autocast: bool, monkeypatch: pytest.MonkeyPatch
):
    model, given = make_model(name), batch(shared)
    before = outcome(model, given, False)
    shorter.prepare(model)
    layer: Any = model.get_submodule("model.layers.0")
    assert all("forward" in vars(part) for part in (layer.self_attn, layer.mlp, layer.input_layernorm))
    found = outcome(model, given, autocast)
    monkeypatch.setattr(library, "library", lambda: None)
    without = outcome(model, given, autocast)
    for one, other in zip(found, without, strict=True):
        assert (one - other).norm() <= (3e-2 if autocast else 5e-6) * other.norm()
    if not autocast:
        for one, other in zip(found, before, strict=True):
            assert (one - other).norm() <= 5e-6 * other.norm()


@pytest.mark.parametrize("shared", [False, True])
def test_any_number_of_threads_gives_the_same_bits(shared: bool):
    model, given, threads = make_model("qwen3"), batch(shared), torch.get_num_threads()
    shorter.prepare(model)
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append([silu_gate(numbers(40, 999), numbers(40, 999)), *outcome(model, given, False)[:2]])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0][:1], other[:1], strict=True))
        assert_alike(other, found[0], torch.float32)


def test_layers_of_another_form_keep_their_own_way():
    from transformers import Phi3Config, Phi3ForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "vocab_size": 32,
        "pad_token_id": 0,
    }
    model = Phi3ForCausalLM(Phi3Config(**sizes, num_attention_heads=4))
    model.config._attn_implementation = ATTENTION
    shorter.prepare(model)
    layer = model.model.layers[0]
    assert not any("forward" in vars(part) for part in (layer.self_attn, layer.mlp))


def test_a_window_and_a_scale_of_the_layers_own_are_kept():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 101}
    config = Qwen2Config(
        **sizes, num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True, sliding_window=8,
        max_window_layers=1, layer_types=["full_attention", "sliding_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.config._attn_implementation = ATTENTION
    before = outcome(model, batch(False), False)
    shorter.prepare(model)
    assert "forward" in vars(model.model.layers[1].self_attn)
    for one, other in zip(outcome(model, batch(False), False), before, strict=True):
        assert (one - other).norm() <= 5e-6 * other.norm()


def test_without_threads_to_share_everything_goes_pytorchs_own_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    library.library.cache_clear()
    load = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object() if name is None else load(name))
    try:
        assert not library.takes(torch.ones(1))
    finally:
        library.library.cache_clear()
    assert "no OpenMP library that compiled loops can share" in capsys.readouterr().err


def test_without_a_compiler_it_is_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    library.library.cache_clear()
    monkeypatch.setenv("CXX", "/no/compiler")
    try:
        assert not library.takes(torch.ones(1))
        assert not library.takes(torch.ones(1))
    finally:
        library.library.cache_clear()
    said = capsys.readouterr().err
    assert said.startswith("this CPU computes more slowly than it could: there is no C++ compiler")
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", MODELS)
def test_the_last_layer_goes_on_with_what_is_predicted_from_alone(name: str):
    model, given = make_model(name), batch(True)
    before = outcome(model, given, False)
    shorter.prepare(model)
    seen: list[int] = []
    for number in (0, 1):
        layer: Any = model.get_submodule(f"model.layers.{number}.mlp")
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    after = outcome(model, given, False)
    assert seen == [len(given.token_ids), int((given.loss_weights != 0).sum())]
    for one, other in zip(after, before, strict=True):
        assert (one - other).norm() <= 5e-6 * other.norm()


def test_a_last_layer_that_hands_nothing_on_goes_its_own_way():
    model = make_model("llama")
    backbone: Any = model.get_submodule("model")

    class Closed(type(backbone)):
        def forward(self, *args: Any, kept: Any = None, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    backbone.__class__ = Closed
    before = outcome(model, batch(False), False)
    shorter.prepare(model)
    assert "forward" not in vars(backbone.layers[-1])
    for one, other in zip(outcome(model, batch(False), False), before, strict=True):
        assert (one - other).norm() <= 5e-6 * other.norm()
