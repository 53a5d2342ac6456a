"""Adapters beside each other in one step, against models with each of them merged."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmkit.engines.inference.contract import GenerationRequest
from llmkit.engines.inference.native.cpu.runner import CpuRunner
from llmkit.engines.inference.native.packed_runner import PackedRunner
from llmkit.errors import RequestError
from llmkit.models import norms
from llmkit.types import SamplingParams

from .test_engine import collect, tell, tokens_of
from .tiny import PACKED, make_model, prompts, save_adapter

SAMPLING = SamplingParams(max_new_tokens=10, temperature=0)
EVERY_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def generated(model: Any, prompt: list[int]) -> list[int]:
    found = model.generate(torch.tensor([prompt]), max_new_tokens=10, do_sample=False, eos_token_id=None)
    return found[0, len(prompt) :].tolist()


async def answers(engine: Any, *requests: GenerationRequest) -> list[list[int]]:
    found = await asyncio.gather(*(collect(engine, request) for request in requests))
    return [tokens_of(deltas[0]) for deltas in found]


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_rows_of_one_batch_have_their_own_adapters(architecture: str, tmp_path: Path):
    model = make_model(PACKED[architecture])
    layers = EVERY_LINEAR if architecture == "qwen3" else ["c_attn", "c_fc"]
    options: dict[str, dict[str, Any]] = {
        "poet": {"target_modules": layers, "lora_alpha": 16, "alpha_pattern": {layers[0]: 3}},
        "critic": {"target_modules": layers[:1], "r": 3, "use_rslora": True},
    }
    merged = {name: save_adapter(model, tmp_path / name, seed=seed, **options[name])
              for seed, name in enumerate(options)}  # fmt: skip
    asked = prompts(20, 20, 33)
    before = [generated(model, prompt) for prompt in asked]

    async def story(engine: Any) -> None:
        for name in options:
            await engine.load_adapter(name, tmp_path / name)
        assert list(engine.adapters) == list(options)
        names = [None, "poet", "critic"] * 3
        everything = [(prompt, name) for prompt in asked for name in names[:3]]
        found = await answers(
            engine, *(GenerationRequest(prompt, SAMPLING, adapter=name) for prompt, name in everything)
        )
        for (prompt, name), tokens in zip(everything, found, strict=True):
            assert tokens == generated(merged[name] if name else model, prompt)
        assert found[0] != found[1] != found[2]
        await engine.unload_adapter("poet")
        with pytest.raises(RequestError, match="no adapter 'poet'; loaded: critic"):
            await anext(engine.stream(GenerationRequest(asked[0], SAMPLING, adapter="poet")))

    tell(model, story, max_step_tokens=32, max_batch_size=16)
    assert [generated(model, prompt) for prompt in asked] == before
    hooks = {hook for module in model.modules() for hook in module._forward_hooks.values()}
    assert hooks <= {norms.to_autocast}, "nothing of the adapters is left in the model"


def test_another_adapter_of_an_old_name_never_meets_its_cache(tmp_path: Path):
    model = make_model(PACKED["llama"])
    merged = [save_adapter(model, tmp_path / str(seed), seed=seed, target_modules=["v_proj"]) for seed in (0, 1)]
    (prompt,) = prompts(40)

    async def story(engine: Any) -> None:
        for number, expected in enumerate(merged):
            await engine.load_adapter("it", tmp_path / str(number))
            found = await answers(engine, GenerationRequest(prompt, SAMPLING, adapter="it"))
            assert found == [generated(expected, prompt)]
            await engine.unload_adapter("it")

    tell(model, story)


def test_unloading_waits_for_the_requests_that_use_it(tmp_path: Path):
    model = make_model(PACKED["llama"])
    save_adapter(model, tmp_path, seed=0, target_modules=["v_proj"])
    (prompt,) = prompts(20)

    async def story(engine: Any) -> None:
        await engine.load_adapter("it", tmp_path)
        long = SamplingParams(max_new_tokens=100)
        running = asyncio.create_task(collect(engine, GenerationRequest(prompt, long, adapter="it")))
        await asyncio.sleep(0.01)
        await engine.unload_adapter("it")
        assert len(tokens_of((await running)[0])) == 100

    tell(model, story)


def edit_config(directory: Path, **values: Any) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_weights(directory: Path, old: str, new: str) -> None:
    path = directory / "adapter_model.safetensors"
    save_file({key.replace(old, new): tensor for key, tensor in load_file(path).items()}, path)


def test_adapters_that_do_not_fit_are_refused_with_the_reason(tmp_path: Path):
    model = make_model(PACKED["llama"])
    wide = make_model(lambda: type(PACKED["llama"]())(**{**PACKED["llama"]().to_dict(), "intermediate_size": 64}))

    def adapter(name: str, base: Any = model, layer: str = "v_proj") -> Path:
        save_adapter(base, tmp_path / name, seed=0, target_modules=[layer])
        return tmp_path / name

    dora, bias, renamed, embedded, damaged = (adapter(name) for name in ("dora", "bias", "renamed", "emb", "damaged"))
    edit_config(dora, use_dora=True)
    edit_config(bias, bias="all")
    edit_weights(renamed, "layers.1", "layers.7")
    edit_weights(embedded, "lora_A.weight", "lora_embedding_A")
    (damaged / "adapter_model.safetensors").write_bytes(b"no weights")
    cases = [
        (tmp_path / "nowhere", "no adapter_config.json"),
        (dora, "use_dora=True"),
        (bias, "trained biases"),
        (renamed, r"model\.layers\.7\.self_attn\.v_proj, and the model has no such layer"),
        (embedded, "lora_embedding_A is no factor of a linear layer"),
        (damaged, "cannot be read"),
        (adapter("wide", wide, "down_proj"), "make a 32 x 64 matrix, and the layer is 32 x 48"),
    ]

    async def story(engine: Any) -> None:
        for path, message in cases:
            with pytest.raises(RequestError, match=message):
                await engine.load_adapter("it", path)
        assert not engine.adapters
        await engine.load_adapter("it", adapter("good"))
        with pytest.raises(RequestError, match="there is an adapter 'it' already"):
            await engine.load_adapter("it", adapter("good"))
        with pytest.raises(RequestError, match="no adapter 'other'; loaded: it"):
            await engine.unload_adapter("other")

    tell(model, story)


def test_compiled_code_takes_adapters_and_hands_over_to_the_models_own_modules_when_it_cannot(tmp_path: Path):
    model = make_model(PACKED["llama"])
    options: dict[str, dict[str, Any]] = {
        "poet": {"target_modules": ["v_proj"]},
        "critic": {"target_modules": ["down_proj"]},
        "wide": {"target_modules": ["q_proj"], "r": 513},
    }
    merged = {name: save_adapter(model, tmp_path / name, seed=seed, **options[name])
              for seed, name in enumerate(options)}  # fmt: skip
    (prompt,) = prompts(20)
    expected = {name: generated(merged[name], prompt) for name in options}
    before = generated(model, prompt)

    async def check(engine: Any, *names: str) -> None:
        found = await answers(engine, *(GenerationRequest(prompt, SAMPLING, adapter=name) for name in (None, *names)))
        assert found == [before, *(expected[name] for name in names)]

    async def story(engine: Any) -> None:
        await engine.load_adapter("poet", tmp_path / "poet")
        await engine.load_adapter("critic", tmp_path / "critic")
        assert isinstance(engine._loop.runner, CpuRunner)
        await check(engine, "poet", "critic")
        await engine.unload_adapter("critic")
        long = SamplingParams(max_new_tokens=60, temperature=0)
        running = asyncio.create_task(collect(engine, GenerationRequest(prompt, long, adapter="poet")))
        await asyncio.sleep(0.005)
        await engine.load_adapter("wide", tmp_path / "wide")
        assert isinstance(engine._loop.runner, PackedRunner)
        await check(engine, "poet", "wide")
        assert tokens_of((await running)[0])[:10] == expected["poet"]
        await engine.unload_adapter("poet")
        await check(engine, "wide")

    tell(model, story, runner="auto")
