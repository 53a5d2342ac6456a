"""Low-rank adapters in the C++ step, against models with each of them merged."""

import copy
from typing import Any

import pytest
import torch

from llmkit.engines.inference.native.adapter_files import LowRankAdapter
from llmkit.engines.inference.native.cpu.runner import CpuRunner
from llmkit.engines.inference.native.runner import Step
from llmkit.errors import EngineError, RequestError

from .cpu_models import make_model, make_policy, make_step, prompts, reference_logits

FAMILIES = ("llama", "phi3", "qwen3", "granite")
BF16 = torch.bfloat16


def linear_layers(model: Any) -> dict[str, torch.nn.Linear]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return {name: module for name, module in found.items() if name != "lm_head"}


def make_adapter(model: Any, rank: int, seed: int, only: str = "") -> LowRankAdapter:
    """Random factors for all linear layers of a decoder, or those with a word in their names."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    layers = {name: module for name, module in linear_layers(model).items() if only in name}
    factors = {name: (random(rank, m.in_features), random(m.out_features, rank)) for name, m in layers.items()}
    return LowRankAdapter(factors)


def merged(model: Any, adapter: LowRankAdapter) -> Any:
    result = copy.deepcopy(model)
    with torch.no_grad():
        for path, (down, up) in adapter.factors.items():
            result.get_submodule(path).weight += up @ down
    return result


def make_runner(model: Any, dtype: torch.dtype = torch.float32, **options: Any) -> CpuRunner:
    runner = CpuRunner(make_policy(model, dtype), **options)
    runner.allocate(64)
    return runner


def with_adapters(step: Step, names: list[str | None]) -> Step:
    return Step(step.token_ids, step.positions, step.query_starts, step.block_tables, step.logit_positions, names)


@pytest.mark.parametrize("architecture", ["native", "haswell"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_sequence_of_a_step_has_its_own_adapter(family, architecture):
    model, given = make_model(family), prompts(33, 21, 5, 40)
    adapters = {"poet": make_adapter(model, 3, 1), "critic": make_adapter(model, 20, 2, "o_proj")}
    runner = make_runner(model, num_threads=2, architecture=architecture)
    for name, adapter in adapters.items():
        assert runner.adapters.objection(name, adapter) is None
        runner.adapters.load(name, adapter)
    names = ["poet", None, "critic", "poet"]
    parts = [(prompt, 0, range(3 * s, 3 * s + 3)) for s, prompt in enumerate(given)]
    logits = runner.forward(with_adapters(make_step(parts, range(sum(map(len, given)))), names))
    for name, prompt, found in zip(names, given, logits.split([len(prompt) for prompt in given]), strict=True):
        wanted = reference_logits(merged(model, adapters[name]) if name else model, prompt)
        assert (found - wanted).abs().max() < 2e-5 * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_a_row_depends_on_nothing_but_its_own_tokens_and_adapter(dtype):
    model, given = make_model("qwen3", dtype), prompts(18, 7, 1, 30, 2, 9)
    together, alone = make_runner(model, dtype, num_threads=2), make_runner(model, dtype, num_threads=1)
    for runner in (together, alone):
        for seed, name in enumerate(("poet", "critic")):
            runner.adapters.load(name, make_adapter(model, 5, seed))
    names = [None, "poet", "critic", "poet", None, "critic"]
    parts = [(prompt, 0, range(2 * s, 2 * s + 2)) for s, prompt in enumerate(given)]
    logits = together.forward(with_adapters(make_step(parts), names))
    for row, (name, prompt) in enumerate(zip(names, given, strict=True)):
        steps = [make_step([([token], position, [9, 4])]) for position, token in enumerate(prompt)]
        *_, single = [alone.forward(with_adapters(step, [name])) for step in steps]
        assert torch.equal(single[0], logits[row])


def test_an_unloaded_adapter_is_forgotten():
    model, (prompt,) = make_model("llama"), prompts(12)
    runner, step = make_runner(model), make_step([(prompt, 0, [0])])
    before = runner.forward(step)
    runner.adapters.load("poet", make_adapter(model, 4, 0))
    assert not torch.equal(runner.forward(with_adapters(step, ["poet"])), before)
    runner.adapters.unload("poet")
    assert torch.equal(runner.forward(step), before)
    with pytest.raises(EngineError, match="asks for the adapter 'poet', which is not loaded"):
        runner.forward(with_adapters(step, ["poet"]))


def test_adapters_that_other_runners_take():
    model = make_model("llama")
    adapters = make_runner(model).adapters
    head = LowRankAdapter({"lm_head": (torch.zeros(2, 60), torch.zeros(131, 2))})
    assert "it changes lm_head" in (adapters.objection("a", head) or "")
    assert "above 512" in (adapters.objection("a", make_adapter(model, 513, 0, "v_proj")) or "")
    with pytest.raises(RequestError, match="of another base model"):
        adapters.objection("a", make_adapter(make_model("qwen3"), 2, 0, "v_proj"))
