"""Every adapter on a small Llama: it starts, trains, is saved, restored, continued and merged as its facts say."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from llmkit import plugins
from llmkit.config.schema import ModelConfig
from llmkit.convert.merging.combining import Combination
from llmkit.convert.merging.command import MergeRequest, merge
from llmkit.errors import ConfigError
from llmkit.models.loading import load_model
from llmkit.testing.adapter import AdapterContract

R8 = {"r": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "adalora": {"start_r": 8, "target_r": 4, "every_steps": 1, "warmup_fraction": 0.2, "final_fraction": 0.3},
    "adamss": {"r": 16},
    "adaption_prompt": {"length": 4},
    "bdlora": R8,
    "beft": {},
    "boft": {},
    "c3a": {"block_size": 16},
    "cartridge": {"num_virtual_tokens": 5},
    "corda": R8,
    "deft": R8,
    "delora": R8,
    "dora": R8,
    "eva": {"r": 4, "rho": 1.0, "tau": 0.9, "num_batches": 2},
    "fourierft": {"num_frequencies": 200},
    "frod": {},
    "full": {},
    "glora": R8,
    "gralora": R8,
    "hira": R8,
    "hra": R8,
    "ia3": {},
    "kasa": R8,
    "ln_tuning": {},
    "loha": R8,
    "lokr": R8,
    "lora": R8,
    "lora_ga": {"r": 8, "num_batches": 2},
    "mica": R8,
    "miss": R8,
    "oft": {"block_size": 16},
    "olora": R8,
    "osf": {},
    "p_tuning": {"num_virtual_tokens": 5},
    "peanut": R8,
    "pissa": R8,
    "prefix_tuning": {"num_virtual_tokens": 5},
    "prompt_tuning": {"num_virtual_tokens": 5},
    "psoft": R8,
    "pvera": {"r": 64},
    "randlora": {"r": 8, "alpha": 160},
    "road": {"group_size": 16},
    "rslora": R8,
    "shadow": {},
    "shira": R8,
    "supertuning": {},
    "tinylora": {},
    "trainable_tokens": {"token_indices": tuple(range(1, 60))},
    "unilora": {},
    "vblora": {"vector_length": 16},
    "velora": {"r": 8, "num_groups": 16},
    "vera": {"r": 64},
    "waveft": {"num_frequencies": 200},
}
RATES = {"adaption_prompt": 0.5, "c3a": 0.05, "ia3": 0.1, "unilora": 0.05, "vera": 0.05, "pvera": 0.05, "hira": 0.05}
ELSEWHERE = {"adaliprompt", "bone", "fourier", "hyenadna", "loftq"}
"""Other names of these, and what needs another model or package; they have tests of their own."""


@pytest.fixture(params=sorted(SETTINGS))
def contract(request: pytest.FixtureRequest, tiny_llama: Path) -> AdapterContract:
    class OnLlama(AdapterContract):
        name = request.param
        options: ClassVar[dict[str, Any]] = SETTINGS[request.param]
        learning_rate = RATES.get(request.param, 1e-2)

        def base_model(self) -> Any:
            return load_model(ModelConfig(path=str(tiny_llama)))

    for module, package in getattr(OnLlama().plugin(), "packages", {}).items():
        pytest.importorskip(module, reason=f"the adapter needs {package}")
    return OnLlama()


def test_every_adapter_is_held_against_its_facts():
    assert {*SETTINGS, *ELSEWHERE} == {name for name in plugins.names("adapters") if ":" not in name}


def test_before_training_the_model_says_what_it_said(contract: AdapterContract):
    contract.test_before_training_the_model_says_what_it_said()


def test_packed_sequences_do_not_see_one_another(contract: AdapterContract):
    contract.test_packed_sequences_do_not_see_one_another()


def test_what_is_marked_trains_and_nothing_else(contract: AdapterContract):
    contract.test_what_is_marked_trains_and_nothing_else()


def test_a_base_that_is_kept_is_there_when_the_adapter_is_off(contract: AdapterContract):
    contract.test_a_base_that_is_kept_is_there_when_the_adapter_is_off()


def test_a_checkpoint_restores_what_was_trained(contract: AdapterContract, tmp_path: Path):
    contract.test_a_checkpoint_restores_what_was_trained(tmp_path)


def test_a_restored_adapter_trains_on_as_if_it_had_not_stopped(contract: AdapterContract, tmp_path: Path):
    contract.test_a_restored_adapter_trains_on_as_if_it_had_not_stopped(tmp_path)


def test_merging_keeps_what_was_learnt_or_is_refused(contract: AdapterContract):
    contract.test_merging_keeps_what_was_learnt_or_is_refused()


def test_its_checkpoint_merges_into_a_model_that_says_the_same_or_is_refused(
    contract: AdapterContract, tiny_llama: Path, tmp_path: Path
):
    if contract.name == "full":
        return  # its checkpoint is a model
    adapter, model = contract.trained()
    adapter.save(model, tmp_path)
    request = MergeRequest((tmp_path,), tmp_path / "merged", str(tiny_llama), None, Combination("linear", (1.0,)))
    if adapter.facts.not_mergeable:
        with pytest.raises(ConfigError, match=r"cannot be merged into its base model: \w"):
            merge(request)
        assert not request.output.exists()
        return
    document = merge(request)
    merged = load_model(ModelConfig(path=str(request.output)))
    torch.testing.assert_close(contract.logits(merged), contract.logits(model), rtol=0, atol=contract.tolerance)
    plain = {"lora", "rslora", "pissa", "olora", "corda", "lora_ga", "eva", "mica", "velora"}
    way = "tensor by tensor" if contract.name in plain else "in memory"
    assert document["options"]["way"] == way, document["options"].get("because")


def test_as_a_plain_lora_it_says_the_same_or_it_is_refused(contract: AdapterContract, tmp_path: Path):
    contract.test_as_a_plain_lora_it_says_the_same_or_it_is_refused(tmp_path)


def test_its_size_is_known_from_shapes_alone(contract: AdapterContract):
    contract.test_its_size_is_known_from_shapes_alone()
