"""One step of demonstrations and of pairs, on a policy whose gradient can be had by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.algorithms.preference import LOSSES
from llmkit.train import dpo, sft
from llmkit.types import PreferencePair, Sample, Source

from .unigram import Steps, UnigramPolicy, resolved

SOURCE = Source("rows.jsonl", 1)


def sample(*answer: int, weight: float = 1.0) -> Sample:
    return Sample([0, 1, *answer], [0.0, 0.0] + [weight] * len(answer), SOURCE)


SAMPLES = [sample(2, 3), sample(4, weight=0.5), sample(3, 3, 1, 0), sample(2)]
PAIRS = [
    PreferencePair(sample(2, 3), sample(4)),
    PreferencePair(sample(1), sample(3, 3, 3)),
    PreferencePair(sample(0, 0, 2), sample(4, 2)),
]
LOGPROBS = UnigramPolicy().logits.detach().log_softmax(0)
REFERENCE = UnigramPolicy().reference


def sft_step(*overrides: str, samples: list[Sample] = SAMPLES) -> tuple[torch.Tensor, dict[str, float]]:
    engine = Steps(UnigramPolicy())
    metrics = sft.update(engine, samples, resolved("train/sft", *overrides))
    return engine.gradients[0], metrics


def dpo_step(*overrides: str, pairs: list[PreferencePair] = PAIRS) -> tuple[Steps, dict[str, float]]:
    engine = Steps(UnigramPolicy())
    return engine, dpo.update(engine, pairs, resolved("train/dpo", *overrides))


class TestSFT:
    def test_smoothing_mixes_the_mean_over_the_vocabulary_in(self):
        _, metrics = sft_step("algorithm.label_smoothing=0.2", samples=[sample(2, 3)])
        chosen = float(LOGPROBS[2] + LOGPROBS[3]) / 2
        assert metrics["loss"] == pytest.approx(-0.8 * chosen - 0.2 * float(LOGPROBS.mean()))

    def test_dft_moves_as_the_probability_does(self):
        gradient, metrics = sft_step("algorithm.loss=dft", samples=[sample(2)])
        probabilities = LOGPROBS.exp()
        onehot = torch.nn.functional.one_hot(torch.tensor(2), 5)
        torch.testing.assert_close(gradient, -probabilities[2] * (onehot - probabilities))
        assert metrics["loss"] == pytest.approx(float(-probabilities[2] * LOGPROBS[2]))

    @pytest.mark.parametrize("overrides", [["algorithm.loss=dft"], ["algorithm.label_smoothing=0.3"], []])
    def test_held_out_losses_are_cross_entropy_whatever_trains(self, overrides: list[str]):
        run = resolved("train/sft", *overrides)
        found = sft.evaluate(UnigramPolicy(), [sample(2, 3), sample(4)], run)  # type: ignore[arg-type]
        assert found["eval_loss"] == pytest.approx(-float(LOGPROBS[[2, 3, 4]].mean()))

    @settings(max_examples=30, deadline=None)
    @given(st.permutations(SAMPLES), st.integers(1, 20), st.sampled_from(["token", "sequence"]), st.booleans())
    def test_nothing_depends_on_micro_batches(self, samples: list[Sample], tokens: int, average: str, smoothed: bool):
        choice = "algorithm.label_smoothing=0.1" if smoothed else "algorithm.loss=dft"
        common = [f"algorithm.average={average}", choice]
        whole, expected = sft_step(*common)
        parts, found = sft_step(*common, f"batch.tokens_per_micro_batch={tokens}", samples=samples)
        torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-9)
        assert found == pytest.approx(expected)


def ratio(answer: list[int]) -> float:
    return float((LOGPROBS - REFERENCE)[answer].sum())


class TestDPO:
    def test_several_losses_by_hand(self):
        _, metrics = dpo_step("algorithm.losses={sigmoid: 1, sft: 0.5}", pairs=PAIRS[:1])
        margin = 0.1 * (ratio([2, 3]) - ratio([4]))
        parts = math.log1p(math.exp(-margin)), -float(LOGPROBS[2] + LOGPROBS[3]) / 2
        assert metrics["loss"] == pytest.approx(parts[0] + 0.5 * parts[1])
        assert (metrics["loss_sigmoid"], metrics["loss_sft"]) == pytest.approx(parts)
        assert metrics["rewards_margin"] == pytest.approx(margin)

    def test_without_a_reference_the_model_alone_counts(self):
        _, metrics = dpo_step("algorithm.reference_free=true", pairs=PAIRS[:1])
        margin = 0.1 * float(LOGPROBS[2] + LOGPROBS[3] - LOGPROBS[4])
        assert metrics["rewards_margin"] == pytest.approx(margin)

    def test_bco_is_centred_at_the_mean_reward_of_the_step(self):
        _, metrics = dpo_step("algorithm.losses={bco: 1}", pairs=PAIRS[:2])
        rewards = [0.1 * ratio(answer) for answer in ([2, 3], [1], [4], [3, 3, 3])]
        mean = sum(rewards) / 4
        losses = [math.log1p(math.exp(mean - reward)) for reward in rewards[:2]]
        losses += [math.log1p(math.exp(reward - mean)) for reward in rewards[2:]]
        assert metrics["loss"] == pytest.approx(sum(losses) / 2)

    @settings(max_examples=40, deadline=None)
    @given(st.permutations(PAIRS), st.integers(1, 30), st.sampled_from(sorted(LOSSES)), st.booleans())
    def test_no_loss_depends_on_micro_batches(
        self, pairs: list[PreferencePair], tokens: int, name: str, reference_free: bool
    ):
        common = [
            f"algorithm.losses={{{name}: 0.7, sigmoid: 0.3}}", f"algorithm.reference_free={str(reference_free).lower()}"
        ] if name != "sigmoid" else []  # fmt: skip
        whole, expected = dpo_step(*common)
        parts, found = dpo_step(*common, f"batch.tokens_per_micro_batch={tokens}", pairs=pairs)
        # the summed weights of answers are float32
        torch.testing.assert_close(parts.gradients[0], whole.gradients[0], rtol=1e-9, atol=1e-12)
        assert found == pytest.approx(expected)
