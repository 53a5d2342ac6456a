"""One batch of rollouts through the whole update, on a policy whose gradient can be had by hand."""

import statistics
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.algorithms.mismatch import mismatch
from llmkit.errors import TrainingError
from llmkit.models.scoring import TokenLogprobs
from llmkit.train.grpo_update import update
from llmkit.types import Batch, Rollout

from .unigram import Steps, UnigramPolicy, resolved, rollout

ROLLOUTS = [
    rollout([2, 3], 1.0, 0),
    rollout([4], 0.0, 0),
    rollout([3, 3, 2], 0.5, 1, logprobs=[-1.0, -2.0, -0.5]),
    rollout([4, 2, 0, 1], -1.0, 1, stop="length"),
    rollout([2, 2], 0.25, 1),
]


def step(*overrides: str, rollouts: list[Rollout] = ROLLOUTS, rate: float = 0.0) -> tuple[Steps, dict[str, float]]:
    """The update under settings such as `loss=cispo` of the algorithm."""
    run = resolved("train/grpo", *(text if "." in text.split("=")[0] and text.startswith(("batch", "sampling"))
                                   else f"algorithm.{text}" for text in overrides))  # fmt: skip
    engine = Steps(UnigramPolicy(), rate)
    return engine, update(engine, rollouts, run)


def policy_gradient(weighted: list[tuple[Rollout, float]]) -> torch.Tensor:
    """By the logits of `sum(-factor * log p(token))`, by hand: `factor * (p - onehot)` for each token."""
    probabilities = UnigramPolicy().logits.detach().softmax(0)
    gradient = torch.zeros_like(probabilities)
    for one, factor in weighted:
        for token in one.token_ids[2:]:
            gradient += factor * probabilities
            gradient[token] -= factor
    return gradient


def group_means() -> list[float]:
    return [0.5, -0.5, 0.5 + 0.25 / 3, -1 + 0.25 / 3, 0.25 + 0.25 / 3]


class TestGradients:
    def test_of_tokens_is_minus_the_advantage_over_their_number(self):
        engine, _ = step("advantage_scale=none")
        expected = policy_gradient([(one, a / 12) for one, a in zip(ROLLOUTS, group_means(), strict=True)])
        torch.testing.assert_close(engine.gradients[0], expected, rtol=1e-6, atol=1e-8)

    def test_of_sequences_counts_each_completion_alike(self):
        engine, _ = step("advantage_scale=none", "average=sequence")
        expected = policy_gradient(
            [(one, a / 5 / one.completion_length) for one, a in zip(ROLLOUTS, group_means(), strict=True)]
        )
        torch.testing.assert_close(engine.gradients[0], expected, rtol=1e-6, atol=1e-8)

    def test_of_a_constant_length(self):
        engine, _ = step("advantage_scale=none", "average=constant", "average_length=7")
        expected = policy_gradient([(one, a / (5 * 7)) for one, a in zip(ROLLOUTS, group_means(), strict=True)])
        torch.testing.assert_close(engine.gradients[0], expected, rtol=1e-6, atol=1e-8)

    def test_masked_completions_are_out_of_the_loss_and_in_the_comparison(self):
        engine, metrics = step("advantage_scale=none", "mask_truncated=true")
        kept = [(one, a / 8) for one, a in zip(ROLLOUTS, group_means(), strict=True) if one.stop_reason == "stop"]
        torch.testing.assert_close(engine.gradients[0], policy_gradient(kept), rtol=1e-6, atol=1e-8)
        assert metrics["num_trained_tokens"] == 8

    def test_the_entropy_bonus_adds_its_own_gradient(self):
        plain, _ = step()
        bonus, metrics = step("entropy_coef=0.1")
        logits = UnigramPolicy().logits
        logprobs = logits.log_softmax(0)
        entropy = -(logprobs.exp() * logprobs).sum()
        (-0.1 * entropy).backward()
        assert logits.grad is not None
        torch.testing.assert_close(bonus.gradients[0] - plain.gradients[0], logits.grad, rtol=1e-5, atol=1e-8)
        assert metrics["entropy"] == pytest.approx(entropy.item())

    def test_an_uninformative_step_is_measured_and_moves_nothing(self):
        equal = [rollout([2, 3], 1.0, 0), rollout([4], 1.0, 0)]
        engine, metrics = step(rollouts=equal)
        assert engine.gradients[0].abs().sum() == 0
        assert metrics["num_trained_tokens"] == 0
        assert metrics["entropy"] > 0

    def test_everything_masked_is_no_division_by_zero(self):
        cut = [rollout([2, 3], 1.0, 0, stop="length"), rollout([4], 0.0, 0, stop="length")]
        engine, metrics = step("mask_truncated=true", rollouts=cut)
        assert (metrics["loss"], metrics["num_trained_tokens"]) == (0.0, 0)
        assert engine.gradients[0].abs().sum() == 0


class Listening(UnigramPolicy):
    """Hears which gradient is announced, and which one comes."""

    announced: torch.Tensor | None = None
    met: torch.Tensor | None = None

    def logprobs(self, batch: Batch, **options: Any) -> TokenLogprobs:
        found = super().logprobs(batch, **options)
        if found.logprobs.requires_grad:
            self.announced = options["loss_scales"]
            found.logprobs.register_hook(lambda gradient: setattr(self, "met", gradient))
        return found


def listen(*overrides: str) -> Listening:
    policy = Listening()
    run = resolved("train/grpo", *(f"algorithm.{text}" for text in overrides))
    update(Steps(policy), ROLLOUTS, run)
    return policy


class TestAnnouncedGradients:
    """The head computes the announced gradient early; one that does not come costs time."""

    @pytest.mark.parametrize(
        "setting",
        ["loss=clip", "loss=cispo", "loss=sapo", "loss=reinforce", "ratio=sequence", "dual_clip=3", "average=sequence"],
    )
    def test_they_are_what_comes_on_policy(self, setting: str):
        policy = listen(setting)
        assert policy.announced is not None
        assert policy.met is not None
        torch.testing.assert_close(policy.met.float(), -policy.announced.float(), rtol=1e-5, atol=0.0)

    @pytest.mark.parametrize(
        "settings", [["kl_coef=0.1"], ["entropy_coef=0.1"], ["correction.action=truncate"], ["updates_per_step=2"]]
    )
    def test_nothing_is_announced_where_more_decides(self, settings: list[str]):
        assert listen(*settings).announced is None


class TestMetrics:
    def test_lone_members_are_counted_and_do_not_train(self):
        _, metrics = step(rollouts=[*ROLLOUTS, rollout([2], 9.0, 2)])
        assert metrics["num_groups_of_one"] == 1
        assert metrics["num_trained_tokens"] == 12

    def test_the_mismatch_is_measured_before_any_correction(self):
        _, plain = step()
        _, corrected = step("correction.action=mask", "correction.upper=1.0001")
        names = [name for name in plain if name.startswith("logprob_mismatch_")]
        assert len(names) == 8
        for name in names:
            assert plain[name] == pytest.approx(corrected[name])
        assert plain["logprob_mismatch_kl"] > 0
        assert 0 < corrected["importance_clipped_fraction"] <= 1

    @pytest.mark.parametrize("setting", ["updates_per_step=2", "kl_coef=0.1", "loss=clip"])
    @pytest.mark.parametrize("tokens", [8192, 7])
    def test_the_mismatch_is_that_of_the_policy_that_the_step_began_with(self, setting: str, tokens: int):
        # However the step is divided, and though later updates of it have another policy.
        _, metrics = step(setting, f"batch.tokens_per_micro_batch={tokens}", rate=5.0)
        every = UnigramPolicy().logits.detach().log_softmax(0)
        logprobs = torch.cat([every[one.token_ids[2:]] for one in ROLLOUTS])
        sampled = torch.tensor([value for one in ROLLOUTS for value in one.logprobs[2:]])
        for name, value in mismatch(logprobs.float(), sampled).items():
            assert metrics[name] == pytest.approx(value), name

    def test_a_step_without_gradient_is_compared_too(self):
        _, metrics = step(rollouts=[rollout([2, 3], 1.0, 0), rollout([4], 1.0, 0)])
        assert metrics["logprob_mismatch_abs_p_max"] > 0

    def test_a_check_that_raises_comes_before_the_weights_change(self):
        engine = Steps(UnigramPolicy(), 1.0)
        seen: list[float] = []

        def check(metrics: Mapping[str, float]) -> None:
            seen.append(metrics["logprob_mismatch_kl"])
            raise TrainingError("too far apart")

        for updates in ("1", "2"):
            run = resolved("train/grpo", f"algorithm.updates_per_step={updates}")
            with pytest.raises(TrainingError, match="too far apart"):
                update(engine, ROLLOUTS, run, check)
        assert engine.gradients == []
        assert seen[0] == pytest.approx(seen[1])

    def test_shaped_rewards_are_told_beside_the_rewards(self):
        _, metrics = step("reward_shaping.bias=1", "reward_shaping.scale=2")
        assert metrics["shaped_reward_mean"] == pytest.approx(2 * (1 + statistics.fmean([1.0, 0.0, 0.5, -1.0, 0.25])))
        assert "shaped_reward_mean" not in step()[1]

    def test_long_completions_lose_reward(self):
        # the last half of 4 tokens: 2 tokens lose nothing, 3 lose 1/2, 4 lose 1
        _, metrics = step("reward_shaping.overlong_fraction=0.5", "sampling.max_new_tokens=4")
        assert metrics["shaped_reward_mean"] == pytest.approx(0.75 / 5 - 1.5 / 5)

    def test_ratios_leave_one_from_the_second_update_on(self):
        four = [one for group in range(4) for one in (rollout([2, 3], 1.0, group), rollout([4], 0.0, group))]
        _, metrics = step("updates_per_step=4", "clip_high=0.01", "clip_low=0.01", rollouts=four, rate=1.0)
        assert metrics["ratio_clipped_fraction"] == pytest.approx(0.75)


class TestPasses:
    """How often the model runs: nothing is computed that is known."""

    @pytest.mark.parametrize(
        ("overrides", "passes"),
        [
            ([], 1),
            (["correction.action=truncate"], 1),  # on policy the update's own log-probabilities are the old ones
            (["kl_coef=0.1"], 1),
            (["kl_coef=0.1", "kl_in=reward", "advantage_scale=batch"], 2),  # advantages need them first
            (["updates_per_step=2"], 4),
        ],
    )
    def test_of_one_step(self, overrides: list[str], passes: int):
        engine, _ = step(*overrides)
        assert engine.policy.num_passes == passes


CHOICES = {
    "loss": ["clip", "cispo", "sapo", "reinforce"],
    "ratio": ["token", "sequence"],
    "average": ["token", "sequence", "constant"],
    "baseline": ["group_mean", "leave_one_out"],
    "advantage_scale": ["batch", "none"],
    "kl_coef": ["0", "0.1"],
    "kl_estimator": ["k1", "k2", "k3"],
    "kl_in": ["loss", "reward"],
    "entropy_coef": ["0", "0.01"],
    "correction.action": ["none", "truncate", "mask"],
    "correction.level": ["token", "sequence"],
    "mask_truncated": ["true", "false"],
}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_choice_depends_on_micro_batches_or_on_the_order_of_rollouts(data: st.DataObject):
    overrides = [f"{name}={data.draw(st.sampled_from(values), name)}" for name, values in CHOICES.items()]
    order = data.draw(st.permutations(ROLLOUTS))
    whole, expected = step(*overrides)
    tokens = data.draw(st.integers(1, 30), "tokens per micro-batch")
    parts, found = step(*overrides, f"batch.tokens_per_micro_batch={tokens}", rollouts=order)
    # float64 from the policy's side; weights, rewards and scales are float32
    torch.testing.assert_close(parts.gradients[0], whole.gradients[0], rtol=1e-5, atol=1e-7)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
