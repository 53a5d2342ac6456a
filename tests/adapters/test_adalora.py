"""AdaLoRA's budget: when ranks fall, how many are left, and that a resumed run cuts the same ones."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llmkit.adapters.adalora import AdaLoRA, AdaLoRAConfig
from llmkit.adapters.contract import AdapterContext
from llmkit.adapters.rank_budget import orthogonality
from llmkit.config.schema import ModelConfig
from llmkit.engines.training.torch_engine import TorchEngine
from llmkit.models.loading import load_model
from llmkit.models.policy import Policy
from llmkit.testing.settings import optim

STEPS = 10


@pytest.fixture
def adapter(tiny_llama: Path) -> AdaLoRA:
    options = {"start_r": 8, "target_r": 4, "every_steps": 1, "warmup_fraction": 0.2, "final_fraction": 0.3}
    adapter = AdaLoRA(AdaLoRAConfig.model_validate(options))
    adapter.begin(AdapterContext(total_steps=STEPS))
    return adapter


def attach(adapter: AdaLoRA, tiny_llama: Path) -> Any:
    torch.manual_seed(0)
    return adapter.attach(load_model(ModelConfig(path=str(tiny_llama))))


def ranks_left(model: Any) -> int:
    values = [parameter for name, parameter in model.named_parameters() if ".lora_E." in name]
    return int(sum((value != 0).sum() for value in values))


def engine(model: Any, adapter: AdaLoRA) -> TorchEngine:
    policy = Policy(model, torch.device("cpu"), torch.float32)
    return TorchEngine(policy, optim(learning_rate=1e-2), STEPS, adapter)


def step(engine: TorchEngine) -> None:
    output = engine.policy.model(input_ids=torch.arange(1, 30)[None], use_cache=False)
    engine.backward(output.logits.square().mean())
    engine.step()


def test_the_schedule_is_that_of_the_run(adapter: AdaLoRA):
    assert adapter.milestones(STEPS) == (2, 3)
    options = adapter.peft_options()
    assert {key: options[key] for key in ("total_step", "tinit", "tfinal", "deltaT", "init_r", "target_r")} == {
        "total_step": 10, "tinit": 2, "tfinal": 3, "deltaT": 1, "init_r": 8, "target_r": 4,
    }  # fmt: skip


def test_ranks_fall_with_the_cube_of_the_time_that_is_left(adapter: AdaLoRA, tiny_llama: Path):
    # 14 modules: 112 ranks at first and 56 at last; between steps 2 and 7, 56 + 56 * (1 - (t - 2) / 5) ** 3.
    model = attach(adapter, tiny_llama)
    trainer = engine(model, adapter)
    left = []
    for _ in range(STEPS):
        step(trainer)
        left.append(ranks_left(model))
    assert left[2:7] == [int(56 + 56 * (1 - (t - 2) / 5) ** 3) for t in range(3, 8)]
    assert left[6] == left[-1] == 56


def test_a_resumed_run_cuts_the_same_ranks(adapter: AdaLoRA, tiny_llama: Path, tmp_path: Path):
    whole = attach(adapter, tiny_llama)
    trainer = engine(whole, adapter)
    for done in range(STEPS):
        if done == 5:
            adapter.save(whole, tmp_path)
            trainer.save(tmp_path)
        step(trainer)
    again = adapter.restore(load_model(ModelConfig(path=str(tiny_llama))), tmp_path)
    resumed = engine(again, adapter)
    resumed.load(tmp_path)
    for _ in range(5, STEPS):
        step(resumed)
    for expected, found in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_a_step_without_any_gradient_moves_no_rank_to_nowhere(adapter: AdaLoRA, tiny_llama: Path):
    adapter = AdaLoRA(adapter.config.model_copy(update={"orthogonal_weight": 0.0}))
    adapter.begin(AdapterContext(total_steps=STEPS))
    model = attach(adapter, tiny_llama)
    trainer = engine(model, adapter)
    trainer.step()
    assert trainer.num_updates == 1


def test_orthogonal_vectors_are_no_penalty_and_scaled_ones_are_their_distance():
    class Vectors(torch.nn.Module):
        def __init__(self, first: torch.Tensor, second: torch.Tensor) -> None:
            super().__init__()
            self.lora_A = torch.nn.ParameterDict({"default": torch.nn.Parameter(first)})
            self.lora_B = torch.nn.ParameterDict({"default": torch.nn.Parameter(second)})

    class Model(torch.nn.Module):
        def __init__(self, first: torch.Tensor, second: torch.Tensor) -> None:
            super().__init__()
            self.layer = Vectors(first, second)

    identity = torch.eye(2, 3)
    assert orthogonality(Model(identity, identity.T)).item() == 0
    # Twice as long rows have the Gram matrix 4 I: |4 I - I| = 3 sqrt(2), and the other matrix adds nothing to the mean.
    assert orthogonality(Model(2 * identity, identity.T)).item() == pytest.approx(3 * 2**0.5 / 2)


def test_the_penalty_pulls_towards_orthogonal_vectors(adapter: AdaLoRA, tiny_llama: Path):
    model = attach(adapter, tiny_llama)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    before = orthogonality(model).item()
    for _ in range(5):
        adapter.before_update(model)
        optimizer.step()
        optimizer.zero_grad()
    assert orthogonality(model).item() < before
