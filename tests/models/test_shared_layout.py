"""A prompt that is there once gives each of its completions what they would get with one of their own."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.collate import collate, collate_groups
from llmkit.models import shared_layout
from llmkit.models.logprobs import predicting_positions, supervised_positions, token_logprobs
from llmkit.models.packed import supports_packing
from llmkit.models.shared_layout import SharedLayout, attend_in_rows, attend_in_turn
from llmkit.types import Sample, Source

from .architectures import ARCHITECTURES, load_small

SHARING = [name for name in ARCHITECTURES if name != "gemma2"]
"""Gemma 2 caps its attention scores, which exists in the eager form alone."""


@pytest.fixture(params=SHARING, scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_small(ARCHITECTURES[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_small(ARCHITECTURES["llama"], tmp_path_factory.mktemp("llama"))


def group(prompt: int, *completions: int, seed: int = 0) -> list[Sample]:
    """Completions of these lengths after one prompt."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return torch.randint(1, 97, (count,), generator=generator).tolist()

    start = draw(prompt)
    return [Sample(start + draw(n), [0.0] * prompt + [1.0] * n, Source("t", 1)) for n in completions]


GROUPS = [group(7, 3, 9, 1), group(4, 5, seed=1), group(2, 6, 6, seed=2), group(1, 2, 3, seed=3)]


def unshared(groups: list[list[Sample]]) -> list[Sample]:
    return [sample for some in groups for sample in some]


@torch.no_grad()
def test_logprobs_equal_those_of_repeated_prompts(model: Any):
    assert supports_packing(model)
    batch = collate_groups(GROUPS)
    assert len(batch.token_ids) == 20 + 9 + 14 + 6
    shared = token_logprobs(model, batch, entropy="value")
    repeated = token_logprobs(model, collate(unshared(GROUPS)), entropy="value")
    torch.testing.assert_close(shared.logprobs, repeated.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(shared.entropy, repeated.entropy, rtol=0, atol=1e-5)


def test_gradients_equal_those_of_repeated_prompts(model: Any):
    found = []
    for batch in (collate_groups(GROUPS), collate(unshared(GROUPS))):
        model.zero_grad()
        logprobs = token_logprobs(model, batch).logprobs
        (logprobs * torch.linspace(-1, 2, len(logprobs))).sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    model.zero_grad()
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("attend", ["rows", "turn"])
def test_both_ways_of_attention_agree_with_the_definition(attend: str):
    groups = [group(6, 3, 8, 5), group(5, 2, seed=1)]
    batch = collate_groups(groups)
    tokens = len(batch.token_ids)
    torch.manual_seed(0)
    query = torch.randn(1, 4, tokens, 8, dtype=torch.float64)
    key, value = torch.randn(2, 1, 2, tokens, 8, dtype=torch.float64)
    layout = SharedLayout(batch)
    pieces: list[torch.Tensor] = []
    for one in layout.groups:
        if attend == "rows":
            pieces.append(attend_in_rows(one, query, key, value, 0.3))
        else:
            pieces += attend_in_turn(one, query, key, value, 0.3, 0.0, None)
    found = torch.cat(pieces, dim=1)
    expected = dense_attention(query, key, value, allowed(groups), 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def allowed(groups: list[list[Sample]]) -> torch.Tensor:
    """[T, T] which tokens each one may see, written down pair by pair."""
    owners: list[tuple[int, int | None, int]] = []
    for number, some in enumerate(groups):
        prompt = some[0].loss_weights.count(0.0) if len(some) > 1 else 0
        owners += [(number, None, position) for position in range(prompt)]
        for member, sample in enumerate(some):
            owners += [(number, member, position) for position in range(prompt, len(sample.token_ids))]
    return torch.tensor([[a[0] == b[0] and b[1] in (None, a[1]) and b[2] <= a[2] for b in owners] for a in owners])


def dense_attention(query: Any, key: Any, value: Any, mask: torch.Tensor, scaling: float) -> torch.Tensor:
    key, value = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


@torch.no_grad()
@pytest.mark.parametrize(("row", "prompt"), [(4, 2048), (512, 3), (4, 3)])
def test_long_ones_go_one_after_another_with_the_same_result(
    row: int, prompt: int, llama: Any, monkeypatch: pytest.MonkeyPatch
):
    expected = token_logprobs(llama, collate(unshared(GROUPS))).logprobs
    monkeypatch.setattr(shared_layout, "LONGEST_ROW", row)
    monkeypatch.setattr(shared_layout, "LONGEST_PROMPT", prompt)
    found = token_logprobs(llama, collate_groups(GROUPS)).logprobs
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_completion_starts_from_the_end_of_its_prompt():
    batch = collate_groups([group(3, 2, 2), group(2, 1, seed=1)])
    # tokens: p p p a a | b b | p c
    positions = supervised_positions(batch)
    assert positions.tolist() == [3, 4, 5, 6, 9]
    assert predicting_positions(batch, positions).tolist() == [2, 3, 2, 5, 8]


@settings(deadline=None, max_examples=40)
@given(
    shapes=st.lists(
        st.tuples(st.integers(0, 12), st.lists(st.integers(1, 9), min_size=1, max_size=4)), min_size=1, max_size=4
    )
)
def test_any_shape_of_groups_agrees(shapes: list[tuple[int, list[int]]], llama: Any):
    groups = [group(prompt, *completions, seed=seed) for seed, (prompt, completions) in enumerate(shapes)]
    if not any(sum(sample.loss_weights[1:]) for sample in unshared(groups)):
        return
    with torch.no_grad():
        shared = token_logprobs(llama, collate_groups(groups)).logprobs
        repeated = token_logprobs(llama, collate(unshared(groups))).logprobs
    torch.testing.assert_close(shared, repeated, rtol=0, atol=1e-5)
