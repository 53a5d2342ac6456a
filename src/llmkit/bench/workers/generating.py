"""The native engine as a benchmark's contender."""

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from itertools import pairwise
from typing import Any

from llmkit.bench.peers.prompts import check_case, digests, make_prompts
from llmkit.bench.peers.serving import Answer, Stopwatch, serve


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Load the model and start the engine; see `llmkit.bench.generation` for the settings."""
    import torch

    from llmkit.bench.machine import held_memory_bytes
    from llmkit.config.schema import DeviceConfig, ModelConfig
    from llmkit.engines.inference.contract import EngineContext, GenerationRequest
    from llmkit.engines.inference.native import Config, build
    from llmkit.models.policy import load_policy
    from llmkit.types import SamplingParams

    torch.set_num_threads(len(settings["cores"]))
    start = time.perf_counter()
    model = ModelConfig.model_validate({"path": settings["model"], "dtype": settings["dtype"]})
    device = DeviceConfig.model_validate({"device": settings["device"]})
    policy = load_policy(model, device)
    config = Config.model_validate({"runner": settings["runner"], "max_batch_size": max(16, *settings["concurrency"])})
    engine = build(config, EngineContext(model, device, policy))
    ready_seconds = time.perf_counter() - start
    vocabulary = policy.model.config.get_text_config().vocab_size
    loop = asyncio.Runner()

    async def one(prompt: list[int], count: int, started: float) -> tuple[list[int], list[float]]:
        request = GenerationRequest(prompt, SamplingParams(max_new_tokens=count, temperature=0, logprob_kind="any"))
        tokens: list[int] = []
        times: list[float] = []
        async for delta in engine.stream(request):
            times += [time.perf_counter() - started] * len(delta.token_ids)
            tokens += delta.token_ids
        return tokens, times

    async def run_all(prompts: list[list[int]], count: int) -> tuple[list[list[int]], list[list[float]]]:
        await engine.load_weights(engine.version)  # nothing of the last run is found again
        started = time.perf_counter()
        found = await asyncio.gather(*(one(prompt, count, started) for prompt in prompts))
        return [tokens for tokens, _ in found], [times for _, times in found]

    async def run(concurrency: int) -> Answer:
        prompts = make_prompts(concurrency, settings["prompt_tokens"], vocabulary)
        clock = Stopwatch()
        made, times = await run_all(prompts, settings["new_tokens"])
        return {
            **clock.read(),
            "num_tokens": sum(map(len, made)),
            "first_seconds": [one[0] for one in times],
            "gaps": [after - before for one in times for before, after in pairwise(one)],
            "ready_seconds": ready_seconds,
            "held_memory_bytes": held_memory_bytes(),
            "weight_bytes": sum(parameter.nbytes for parameter in policy.model.parameters()),
        }

    async def check() -> Answer:
        count, length, new = check_case(settings)
        made, _ = await run_all(make_prompts(count, length, vocabulary), new)
        return {"digests": digests(made)}

    async def repeat() -> Answer:
        """A long prompt, and the same one again."""
        length = min(settings["long_prompt_tokens"], (engine.context_length or 1 << 30) - 2)
        prompt = make_prompts(1, length, vocabulary)[0]
        await engine.load_weights(engine.version)
        seconds = []
        for _ in range(2):
            _, times = await one(prompt, 2, time.perf_counter())
            seconds.append(times[0])
        return {"prompt_tokens": length, "first_seconds": seconds[0], "again_seconds": seconds[1]}

    def told(story: Any, *args: Any) -> Answer:
        work: Coroutine[Any, Any, Answer] = story(*args)
        return loop.run(work)

    tasks = {f"run-{count}": partial(told, run, count) for count in settings["concurrency"]}
    return {"check": partial(told, check), "repeat": partial(told, repeat), **tasks}


if __name__ == "__main__":
    serve(prepare)
