"""The engine on an NVIDIA GPU, beside transformers on the same GPU: `make test-gpu`, or `pytest -m gpu`."""

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llmkit.config.schema import DeviceConfig
from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.inference.native import Config, build
from llmkit.engines.inference.sampling.batch import SamplerState, draw
from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.engines.inference.transfers import to_host
from llmkit.models.policy import Policy
from llmkit.types import SamplingParams

from .test_architectures import LENGTHS, NEW_TOKENS, generated
from .tiny import PACKED, make_model, prompts

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """float32 is float32 here, and not the tensor cores' TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def engine_on_gpu(policy: Policy, **config: Any) -> ServingEngine:
    device = DeviceConfig.model_validate({"device": "cuda"})
    context = EngineContext(model=None, device=device, policy=policy, tokenizer=None)  # type: ignore[arg-type]
    return build(Config(**{"runner": "cuda", "num_blocks": 64, "max_batch_size": 16, **config}), context)


def on_gpu(name: str, dtype: torch.dtype = torch.float32) -> Policy:
    device = torch.device("cuda", torch.cuda.current_device())
    return Policy(make_model(PACKED[name]).to(device), device, dtype)


def recorded(engine: Any) -> list[int]:
    return engine._loop.runner._graphs.recorded


@pytest.mark.parametrize("name", PACKED)
def test_greedy_tokens_are_those_of_generate(name: str):
    policy = on_gpu(name)
    asked = prompts(*LENGTHS)
    expected = [generated(policy.model, prompt) for prompt in asked]
    sampling = SamplingParams(max_new_tokens=NEW_TOKENS, temperature=0)

    async def story() -> list[list[int]]:
        engine = engine_on_gpu(policy, num_blocks=8, max_step_tokens=16)
        found = await asyncio.gather(*(engine.generate(prompt, sampling) for prompt in asked))
        alone = await engine.generate(asked[4], sampling)
        assert alone.token_ids == expected[4]
        assert engine.stats().num_preemptions > 0
        assert recorded(engine), "nothing was recorded"
        await engine.close()
        return [completion.token_ids for completion in found]

    assert asyncio.run(story()) == expected


@pytest.mark.parametrize("name", ["llama", "mistral, window", "gemma2, window and softcap"])
@pytest.mark.parametrize("graphs", [True, False])
def test_logprobs_in_half_precision_are_near_those_of_single(name: str, graphs: bool):
    sampling = SamplingParams(max_new_tokens=12, temperature=1, seed=3)

    async def story(dtype: torch.dtype, **config: Any) -> list[Any]:
        engine = engine_on_gpu(on_gpu(name, dtype), **config)
        found = await asyncio.gather(*(engine.generate(prompt, sampling) for prompt in prompts(5, 40, 70)))
        await engine.close()
        return found

    halves = asyncio.run(story(torch.bfloat16, cuda_graphs=graphs))
    policy = on_gpu(name)
    for prompt, completion in zip(prompts(5, 40, 70), halves, strict=True):
        ids = torch.tensor([prompt + completion.token_ids], device=policy.device)
        with torch.no_grad():
            logprobs = policy.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        exact = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0].cpu()
        torch.testing.assert_close(torch.tensor(completion.logprobs), exact, rtol=0.02, atol=0.15)


def test_weights_that_change_in_place_are_seen_by_what_was_recorded():
    policy = on_gpu("llama")
    (prompt,) = prompts(20)
    sampling = SamplingParams(max_new_tokens=8, temperature=0)

    async def story() -> tuple[list[int], list[int]]:
        engine = engine_on_gpu(policy)
        before = await engine.generate(prompt, sampling)
        sizes = recorded(engine)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.2)
        await engine.load_weights(1)
        assert recorded(engine) == sizes
        after = await engine.generate(prompt, sampling)
        await engine.close()
        return before.token_ids, after.token_ids

    before, after = asyncio.run(story())
    assert after != before
    assert after == generated(policy.model, prompt)[:8]


def test_a_step_waits_for_the_gpu_once():
    from llmkit.engines.inference.native.cuda.runner import CudaRunner
    from llmkit.engines.inference.native.probe import packed_runner
    from llmkit.engines.inference.native.runner import Step

    policy = on_gpu("llama")
    runner = packed_runner(policy, lambda policy, shapes: CudaRunner(policy, shapes, max_rows=4))
    assert isinstance(runner, CudaRunner), runner
    runner.allocate(8)
    table = torch.tensor([[1], [2]], dtype=torch.int32)
    starts = torch.arange(3, dtype=torch.int32)
    step = Step(torch.tensor([5, 6]), torch.tensor([0, 0]), starts, table, torch.arange(2), [None, None])
    rules = SamplingParams(top_p=0.9), SamplingParams(temperature=0, num_top_logprobs=2)
    context = SamplingContext(199, device=policy.device)
    states = [SamplerState(sampling, 1, [3], context) for sampling in rules]
    for _ in range(2):  # the first time makes what the others use
        draw(runner.forward(step), states)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            draw(runner.forward(step), states)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]
    assert len(waits) == 1, waits


def test_numbers_come_back_as_they_were():
    sent = [torch.tensor([1 << 40, 3]), torch.tensor([[0.5], [-1.0]]), torch.tensor([True])]
    found = to_host([tensor.cuda() for tensor in sent])
    assert [array.tolist() for array in found] == [[1 << 40, 3], [[0.5], [-1.0]], [1.0]]
