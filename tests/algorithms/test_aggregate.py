import pytest
import torch

from llmkit.algorithms.aggregate import sequence_sums, token_scales
from llmkit.algorithms.sft import sft_loss


def test_token_average_is_the_mean_over_all_tokens():
    scales = token_scales(torch.ones(4), torch.tensor([0, 0, 0, 1]), "token", 4.0)
    losses = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert sft_loss(-losses, scales).item() == 3.0


def test_sequence_average_counts_every_sequence_alike():
    # sequence means 2 and 6
    scales = token_scales(torch.ones(4), torch.tensor([0, 0, 0, 1]), "sequence", 2.0)
    assert sft_loss(-torch.tensor([1.0, 2.0, 3.0, 6.0]), scales).item() == 4.0


def test_weights_are_relative_importance():
    scales = token_scales(torch.tensor([1.0, 3.0]), torch.tensor([0, 0]), "token", 4.0)
    assert sft_loss(-torch.tensor([4.0, 8.0]), scales).item() == 7.0


@pytest.mark.parametrize("average", ["token", "sequence"])
def test_micro_batches_add_up_to_the_whole_step(average: str):
    generator = torch.Generator().manual_seed(0)
    logprobs = torch.randn(10, generator=generator)
    weights = torch.rand(10, generator=generator)
    ids = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
    total = float(weights.sum()) if average == "token" else 4.0
    whole = sft_loss(logprobs, token_scales(weights, ids, average, total))
    parts = [
        sft_loss(logprobs[part], token_scales(weights[part], ids[part] - ids[part][0], average, total))
        for part in (slice(0, 5), slice(5, 10))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_an_unknown_average_is_refused():
    with pytest.raises(ValueError, match="'rows'"):
        token_scales(torch.ones(1), torch.zeros(1, dtype=torch.int64), "rows", 1.0)


def test_sequence_sums():
    assert sequence_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 2]), 3).tolist() == [3.0, 0.0, 4.0]
