"""Log-probabilities that are looked up by the tokens of a sequence."""

from pathlib import Path

import pytest
import torch

from llmkit.data.collate import collate, collate_groups
from llmkit.models.logprobs import supervised_positions
from llmkit.models.precomputed import data_digest, precompute, weights_digest
from llmkit.types import Batch, Sample, Source


def sample(*completion: int, prompt: tuple[int, ...] = (1, 2)) -> Sample:
    return Sample([*prompt, *completion], [0.0] * len(prompt) + [1.0] * len(completion), Source("x", 1))


def half_of_each_token(batch: Batch) -> torch.Tensor:
    """Stands for a model: what it says of a token is half the token's number."""
    return batch.token_ids[supervised_positions(batch)] / 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))


SAMPLES = [sample(5, 6), sample(7), sample(5, prompt=(3,))]


def test_each_sequence_is_found_in_whatever_batch_it_comes():
    found = precompute("a", lambda: [collate(SAMPLES[:2]), collate(SAMPLES[2:])], half_of_each_token)
    assert len(found) == 3
    assert found.logprobs(collate(SAMPLES[::-1])).tolist() == [2.5, 3.5, 2.5, 3.0]
    assert found.logprobs(collate_groups([SAMPLES[:2], SAMPLES[2:]])).tolist() == [2.5, 3.0, 3.5, 2.5]


def test_the_cache_is_asked_before_the_model():
    def never(batch: Batch) -> torch.Tensor:
        raise AssertionError("the model was asked again")

    precompute("a", lambda: [collate(SAMPLES)], half_of_each_token)
    assert precompute("a", list, never).logprobs(collate(SAMPLES[1:2])).tolist() == [3.5]


def test_a_sequence_that_was_not_there_is_an_error():
    found = precompute("a", lambda: [collate(SAMPLES)], half_of_each_token)
    with pytest.raises(KeyError):
        found.logprobs(collate([sample(6, 5)]))


def test_the_data_has_one_name_however_it_is_batched():
    name = data_digest([collate(SAMPLES)])
    assert name == data_digest([collate_groups([SAMPLES[:2]]), collate(SAMPLES[2:])])
    assert name == data_digest([collate(SAMPLES[::-1])])
    assert name != data_digest([collate(SAMPLES[:2])])
    masked = Sample([1, 2, 5, 6], [0.0, 1.0, 1.0, 1.0], Source("x", 1))
    assert name != data_digest([collate([masked, *SAMPLES[1:]])])


def test_weights_have_a_name_by_their_bits():
    weights = [torch.ones(3), torch.zeros(2, 2, dtype=torch.bfloat16)]
    assert weights_digest(weights) == weights_digest([one.clone() for one in weights])
    assert weights_digest(weights) != weights_digest([torch.ones(3), torch.zeros(4, dtype=torch.bfloat16)])
    assert weights_digest(weights) != weights_digest([torch.tensor([1.0, 1.0, 1.0000001]), weights[1]])
