from typing import Any

import pytest

from llmkit.config.resolve import resolve
from llmkit.config.runs import SCHEMAS
from llmkit.errors import ConfigError


def run(command: str, *overrides: str) -> Any:
    data = ["dataset.name=arithmetic", *overrides]
    return resolve(SCHEMAS[command], command=command, overrides=data, environ={}).run


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        ("train/sft", ["algorithm.loss=dft", "algorithm.label_smoothing=0.1"], "set one of them back"),
        ("train/dpo", ["algorithm.losses={sigmod: 1}"], "'sigmod' (algorithm.losses.sigmod). Did you mean 'sigmoid'?"),
        ("train/dpo", ["algorithm.losses={exo_pair: 1}"], "Did you mean 'exo'?"),
        ("train/dpo", ["algorithm.losses={rpo: 1}"], "'sigmoid' and 'sft', whose weight is RPO's alpha"),
        ("train/dpo", ["algorithm.losses={cdpo: 1}"], "'sigmoid' with algorithm.label_smoothing"),
        ("train/dpo", ["algorithm.losses={ipo: -1}"], "a weight must be 0 or more, and algorithm.losses.ipo is -1"),
        ("train/dpo", ["algorithm.losses.ipo=.inf"], "and algorithm.losses.ipo is inf"),
        ("train/dpo", ["algorithm.losses={ipo: 0}"], "no loss has a weight above 0; name one of sigmoid, "),
        ("train/dpo", ["algorithm.losses={robust: 1}", "algorithm.label_smoothing=0.5"], "less than 0.5, got 0.5"),
        ("train/dpo", ["algorithm.losses=ipo"], "must be a section"),
        ("train/grpo", ["algorithm.group_size=1"], "algorithm.group_size=1 leaves nothing to compare with"),
        ("train/grpo", ["algorithm.group_size=1", "algorithm.baseline=none", "algorithm.advantage_scale=batch",
                        "algorithm.max_sampling_rounds=2"], "which algorithm.max_sampling_rounds does"),
        ("train/grpo", ["algorithm.baseline=none"], "a group of equal rewards would divide by 0; use batch or none"),
        ("train/grpo", ["algorithm.kl_coef=1", "algorithm.kl_in=reward"], "use batch or none"),
        ("train/grpo", ["algorithm.correction.lower=3"], "algorithm.correction.lower (3) must be less than"),
        ("train/grpo", ["algorithm.sapo_temperatures=[1, 0]"], "both must be greater than 0, got 1 and 0"),
        ("train/grpo", ["algorithm.updates_per_step=32"], "is more than batch.prompts_per_step (16)"),
        ("train/grpo", ["algorithm.loss=ppo"], "'clip', 'cispo', 'sapo', 'reinforce'"),
        ("train/grpo", ["algorithm.dual_clip=0.5"], "must be greater than 1, got 0.5"),
        ("train/grpo", ["sampling.temperature=0"], "must be greater than 0, got 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_way_out(command: str, overrides: list[str], message: str):
    with pytest.raises(ConfigError) as caught:
        run(command, *overrides)
    assert message in str(caught.value)
    assert str(caught.value).startswith("--set ")


def test_naming_losses_replaces_the_default_and_0_leaves_one_out():
    assert run("train/dpo").algorithm.weights == {"sigmoid": 1.0}
    assert run("train/dpo", "algorithm.losses={ipo: 0.5, sft: 0}").algorithm.weights == {"ipo": 0.5}
    assert run("train/dpo", "algorithm.losses.ipo=1").algorithm.weights == {"ipo": 1.0}


@pytest.mark.parametrize(
    ("command", "overrides", "needed"),
    [
        ("train/dpo", [], True),
        ("train/dpo", ["algorithm.reference_free=true"], False),
        ("train/dpo", ["algorithm.losses={sft: 1}"], False),
        ("train/dpo", ["algorithm.losses={sft: 1, ipo: 1}"], True),
        ("train/grpo", [], False),
        ("train/grpo", ["algorithm.kl_coef=0.1"], True),
    ],
)
def test_a_reference_model_is_needed_only_where_something_asks_it(command: str, overrides: list[str], needed: bool):
    assert run(command, *overrides).algorithm.needs_reference is needed


def test_one_completion_for_each_prompt_is_enough_without_groups():
    overrides = ["algorithm.group_size=1", "algorithm.baseline=batch_mean", "algorithm.advantage_scale=batch"]
    assert run("train/grpo", *overrides).algorithm.group_size == 1
