"""Attention in rows against the formula written out, forward and backward."""

import pytest
import torch
from torch import Tensor

from llmkit.models import row_attention as module
from llmkit.models.row_attention import row_attention
from llmkit.models.rows import from_rows, order_of_tokens, row_groups

CPU = torch.device("cpu")


def plain(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(key.shape[2] - query.shape[2])
    return scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ value


def states(length: int, shared: int, kind: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    query = torch.randn(3, 4, length, 8, dtype=kind, requires_grad=True)
    key, value = (torch.randn(3, 2, shared + length, 8, dtype=kind, requires_grad=True) for _ in range(2))
    return [query, key, value]


def test_two_tokens_by_hand():
    # The first token sees itself alone. The second has scores ln 3 and 0: weights 3/4 and 1/4.
    query = torch.tensor([[[[0.0], [1.0]]]])
    key = torch.tensor([[[[1.0986123], [0.0]]]])
    value = torch.tensor([[[[4.0], [8.0]]]])
    torch.testing.assert_close(row_attention(query, key, value, 1.0), torch.tensor([[[[4.0], [5.0]]]]))


@pytest.mark.parametrize("block", [2, 3, 128])
@pytest.mark.parametrize(("length", "shared"), [(1, 0), (7, 0), (7, 4), (1, 5)])
def test_values_and_gradients_are_those_of_the_formula(
    length: int, shared: int, block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "BLOCK", block)
    upstream = torch.randn(3, 4, length, 8, dtype=torch.float64)
    found = []
    for run in (row_attention, plain):
        given = states(length, shared)
        output = run(*given, 0.3)
        output.backward(upstream)
        found.append([output.detach(), *(one.grad for one in given)])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


def test_half_precision_is_close_to_the_formula():
    given = states(40, 0, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = row_attention(*given, 0.3)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), plain(*given, 0.3), rtol=0.02, atol=0.03)


def test_rows_of_similar_length_come_together_and_go_back_in_order():
    spans = [slice(0, 5), slice(5, 405), slice(405, 410), slice(410, 800)]
    groups = row_groups(spans, CPU)
    assert [group.members for group in groups] == [[1, 3], [0, 2]]
    assert [group.longest for group in groups] == [400, 5]
    tokens = torch.arange(800.0)[None, None, :, None]
    rows = torch.cat([from_rows(group.to_rows(tokens)) for group in groups])
    assert rows[order_of_tokens(groups, spans)].flatten().tolist() == list(range(800))


def test_few_short_rows_are_not_worth_a_group_each():
    assert len(row_groups([slice(0, 1), slice(1, 100), slice(100, 130)], CPU)) == 1


def test_an_empty_sequence_among_others_gives_nothing():
    spans = [slice(0, 3), slice(3, 3), slice(3, 5)]
    groups = row_groups(spans, CPU)
    tokens = torch.arange(5.0)[None, None, :, None]
    rows = torch.cat([from_rows(group.to_rows(tokens)) for group in groups])
    assert rows[order_of_tokens(groups, spans)].flatten().tolist() == [0, 1, 2, 3, 4]
