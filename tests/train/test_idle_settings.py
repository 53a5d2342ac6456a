import pytest

from llmkit.config.algorithms import DPOConfig, GRPOConfig
from llmkit.config.optim import OptimConfig
from llmkit.config.section import PluginSection
from llmkit.train.idle_settings import (
    idle_dpo_settings,
    idle_grpo_settings,
    idle_optim_settings,
    mistaken_kl_settings,
    warn_of_idle_settings,
)


def test_defaults_are_silent(capsys: pytest.CaptureFixture[str]):
    warn_of_idle_settings(DPOConfig.model_validate({}))
    warn_of_idle_settings(GRPOConfig.model_validate({}), 0.7)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"losses": {"ipo": 1}, "label_smoothing": 0.1}, "algorithm.label_smoothing=0.1"),
        ({"losses": {"robust": 1}}, "algorithm.losses=robust"),
        ({"discopop_temperature": 1.0}, "algorithm.discopop_temperature=1.0"),
        ({"losses": {"sft": 1}, "beta": 0.3}, "algorithm.beta=0.3"),
        ({"losses": {"sft": 1}, "reference_free": True}, "algorithm.reference_free=True"),
    ],
)
def test_preference_settings_without_effect_are_named(settings: dict, name: str):
    (found,) = idle_dpo_settings(DPOConfig.model_validate(settings))
    assert found.startswith(name)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"clip_high": 0.28}, "algorithm.clip_high=0.28 has no effect: with algorithm.updates_per_step=1"),
        ({"loss": "cispo", "dual_clip": 3, "updates_per_step": 2}, "algorithm.dual_clip=3.0"),
        ({"loss": "sapo", "clip_low": 0.1, "updates_per_step": 2}, "algorithm.clip_low=0.1"),
        ({"loss": "reinforce", "ratio": "sequence"}, "algorithm.ratio=sequence"),
        ({"sapo_temperatures": [2, 2], "updates_per_step": 2}, "algorithm.sapo_temperatures=(2.0, 2.0)"),
        ({"average_length": 9}, "algorithm.average_length=9"),
        ({"kl_estimator": "k2"}, "algorithm.kl_estimator=k2"),
        ({"kl_in": "reward"}, "algorithm.kl_in=reward"),
        ({"correction": {"upper": 3}}, "algorithm.correction.upper=3.0"),
        ({"reward_shaping": {"overlong_penalty": 2}}, "algorithm.reward_shaping.overlong_penalty=2.0"),
    ],
)
def test_settings_of_reinforcement_learning_without_effect_are_named(settings: dict, name: str):
    (found,) = idle_grpo_settings(GRPOConfig.model_validate(settings))
    assert found.startswith(name)


def test_what_a_kl_penalty_may_not_mean():
    config = GRPOConfig.model_validate({"kl_coef": 0.1, "kl_estimator": "k1"})
    temperature, estimator = mistaken_kl_settings(config, 0.7)
    assert "sampling.temperature=0.7" in temperature
    assert "algorithm.kl_estimator=k1 in the loss" in estimator
    assert list(mistaken_kl_settings(GRPOConfig.model_validate({"kl_coef": 0.1}), 1.0)) == []


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"restart_steps": 9}, "optim.restart_steps=9 has no effect: optim.schedule=linear has no use for it"),
        ({"decay_ratio": 0.5}, "optim.decay_ratio=0.5 has no effect"),
        ({"schedule": "constant", "min_learning_rate_ratio": 0.1}, "optim.min_learning_rate_ratio=0.1 has no effect"),
        ({"max_skipped_steps": 3}, "optim.max_skipped_steps=3 has no effect: optim.on_nonfinite is raise"),
        ({"spike_factor": None, "spike_window": 9}, "optim.spike_window=9 has no effect"),
        (
            {"optimizer": PluginSection(name="schedule_free")},
            "optim.schedule=linear with optim.optimizer=schedule_free",
        ),
    ],
)
def test_settings_of_the_optimizer_without_effect_are_named(settings: dict, found: str):
    (text,) = idle_optim_settings(OptimConfig.model_validate({"optimizer": PluginSection(name="adamw"), **settings}))
    assert text.startswith(found)


def test_a_schedule_with_its_own_settings_has_nothing_to_name():
    settings = {"schedule": "cosine_restarts", "restart_steps": 9, "min_learning_rate_ratio": 0.1}
    optim = OptimConfig.model_validate({"optimizer": PluginSection(name="adamw"), **settings})
    assert list(idle_optim_settings(optim)) == []
