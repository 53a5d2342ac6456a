import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.algorithms.aggregate import sequence_means, sequence_sums, step_total, token_scales

LOSSES = torch.tensor([1.0, 2.0, 3.0, 6.0])
IDS = torch.tensor([0, 0, 0, 1])


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ("token", 3.0),  # (1 + 2 + 3 + 6) / 4
        ("sequence", 4.0),  # sequence means 2 and 6
        ("constant", 1.2),  # 12 / (2 sequences of 5 tokens)
    ],
)
def test_averages_by_hand(average: str, expected: float):
    total = step_total(average, num_tokens=4, num_sequences=2, length=5)
    assert (LOSSES * token_scales(torch.ones(4), IDS, average, total)).sum().item() == pytest.approx(expected)


def test_weights_are_relative_importance():
    scales = token_scales(torch.tensor([1.0, 3.0]), torch.tensor([0, 0]), "token", 4.0)
    assert (torch.tensor([4.0, 8.0]) * scales).sum().item() == 7.0


@settings(deadline=None)
@given(st.data(), st.sampled_from(["token", "sequence", "constant"]))
def test_any_division_into_whole_sequences_adds_up_to_the_step(data: st.DataObject, average: str):
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    sequences = [torch.rand(length, 2, generator=generator, dtype=torch.float64) + 0.1 for length in lengths]
    weight = float(sum(sequence[:, 1].sum() for sequence in sequences))
    total = step_total(average, num_tokens=weight, num_sequences=len(lengths), length=7)

    def loss(part: list[torch.Tensor]) -> torch.Tensor:
        ids = torch.cat([torch.full((len(sequence),), index) for index, sequence in enumerate(part)])
        losses, weights = torch.cat(part).unbind(1)
        return (losses * token_scales(weights, ids, average, total)).sum()

    order = data.draw(st.permutations(sequences))
    cut = data.draw(st.integers(1, len(order) - 1))
    torch.testing.assert_close(loss(order[:cut]) + loss(order[cut:]), loss(sequences), rtol=1e-13, atol=0.0)


def test_an_unknown_average_is_refused():
    with pytest.raises(ValueError, match="'rows'"):
        token_scales(torch.ones(1), torch.zeros(1, dtype=torch.int64), "rows", 1.0)
    with pytest.raises(ValueError, match="'rows'"):
        step_total("rows", num_tokens=1, num_sequences=1)


def test_sequence_sums_and_means():
    ids = torch.tensor([0, 0, 2])
    assert sequence_sums(torch.tensor([1.0, 2.0, 4.0]), ids, 3).tolist() == [3.0, 0.0, 4.0]
    assert sequence_means(torch.tensor([1.0, 2.0, 4.0]), ids).tolist() == [1.5, 1.5, 4.0]
