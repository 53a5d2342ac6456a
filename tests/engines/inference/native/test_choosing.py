import resource
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from llmkit.engines.inference.contract import Demand
from llmkit.engines.inference.native import Config
from llmkit.engines.inference.native.choosing import choose
from llmkit.engines.inference.native.cuda import device
from llmkit.engines.inference.native.runner import Step
from llmkit.errors import ConfigError

from .tiny import COMMON, PACKED, make_model, policy_of


@pytest.mark.parametrize(
    ("config", "demand", "blocks"),
    [
        ({}, Demand(8, 40), 8 * (3 + 1)),  # 40 tokens are 3 blocks of 16
        ({"max_batch_size": 4}, Demand(8, 40), 4 * (3 + 1)),
        ({"num_blocks": 100}, Demand(8, 40), 100),
    ],
)
def test_the_cache_beside_a_trainer_holds_what_a_step_can_fill(config: dict[str, int], demand: Demand, blocks: int):
    policy = policy_of(make_model(next(iter(PACKED.values()))))
    chosen = choose(policy, Config.model_validate({"runner": "packed", **config}), demand)
    assert chosen.num_blocks == blocks
    alone = choose(policy, Config.model_validate({"runner": "packed", **config}))
    assert alone.num_blocks >= blocks


def test_kernels_for_gpus_are_refused_elsewhere():
    policy = policy_of(make_model(PACKED["llama"]))
    with pytest.raises(ConfigError, match=r"runner=cuda: llama: it is for NVIDIA GPUs, and the model is on cpu\. Use"):
        choose(policy, Config(runner="cuda", num_blocks=4))


def test_a_setting_of_gpus_that_changes_nothing_is_named(caplog: pytest.LogCaptureFixture):
    policy = policy_of(make_model(PACKED["llama"]))
    assert choose(policy, Config(num_blocks=4)).name != "cuda"
    assert "cuda_graphs" not in caplog.text
    choose(policy, Config(num_blocks=4, runner="packed", cuda_graphs=False))
    assert "engine.cuda_graphs=false has no effect: the runner is packed" in caplog.text


@pytest.mark.parametrize(
    ("hip", "capability", "triton", "reason"),
    [
        (None, (9, 0), object(), None),
        (None, (7, 5), object(), "it is for GPUs since compute 8.0, and this one has 7.5"),
        ("6.4", (9, 0), object(), "it is for NVIDIA GPUs, and this PyTorch is for those of AMD"),
        (None, (9, 0), None, "there is no Triton; pip install triton"),
    ],
)
def test_which_gpus_can_run_the_kernels(
    hip: str | None, capability: tuple[int, int], triton: object, reason: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(device, "find_spec", lambda _: triton)
    assert device.why_not(torch.device("cuda:0")) == reason


@pytest.mark.parametrize("copies", [True, False])
def test_whether_compiled_code_copies_the_weights(copies: bool):
    policy = policy_of(make_model(PACKED["llama"]))
    config = Config(runner="cpu", copy_weights=copies, num_blocks=4)
    runner = choose(policy, config).runner
    step = Step(
        torch.tensor([5, 6]), torch.arange(2), torch.tensor([0, 2]), torch.tensor([[1]]), torch.tensor([1]), [None]
    )
    before = runner.forward(step)
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(2)
    assert torch.equal(runner.forward(step), before) == copies
    runner.weights_changed()
    assert torch.equal(runner.forward(step), before * 2)


def test_other_runners_have_no_copy_of_the_weights(caplog: pytest.LogCaptureFixture):
    choose(policy_of(make_model(PACKED["llama"])), Config(runner="packed", copy_weights=True, num_blocks=4))
    assert "engine.copy_weights has no effect: the runner is packed" in caplog.text


def test_a_copy_of_the_weights_that_no_memory_is_left_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)  # more threads would need memory of their own
    policy = policy_of(make_model(lambda: LlamaConfig(**{**COMMON, "vocab_size": 1 << 18})))
    choose(policy, Config(runner="cpu", copy_weights=False, num_blocks=4))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), before[1]))
    try:
        with pytest.raises(
            ConfigError, match=r"no memory for a copy of the weights, 32 MiB. Set engine.copy_weights=false"
        ):
            choose(policy, Config(runner="cpu", copy_weights=True, num_blocks=4))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
