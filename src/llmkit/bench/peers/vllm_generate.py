"""vLLM in its own environment: all requests at once, tokens as they come from its engine's steps."""

import functools
import os
import time
from itertools import pairwise
from typing import Any

from .prompts import check_case, digests, make_prompts
from .serving import Answer, Stopwatch, serve

# One process: what is measured is the engine, not the way to it.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Start the engine; see `llmkit.bench.generation` for the settings."""
    import torch
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports] - in an environment of its own

    torch.set_num_threads(len(settings["cores"]))
    engine = LLM(
        model=settings["model"], dtype=settings["dtype"], skip_tokenizer_init=True, enable_prefix_caching=False,
        max_model_len=settings["context"], max_num_seqs=max(settings["concurrency"]),
    )  # fmt: skip
    vocabulary = engine.llm_engine.model_config.get_vocab_size()

    def run_all(prompts: list[list[int]], count: int) -> tuple[list[list[int]], list[list[float]]]:
        rules = SamplingParams(temperature=0, max_tokens=count, min_tokens=count, ignore_eos=True, detokenize=False)
        start = time.perf_counter()
        for number, prompt in enumerate(prompts):
            engine.llm_engine.add_request(str(number), {"prompt_token_ids": prompt}, rules)
        made: list[list[int]] = [[] for _ in prompts]
        times: list[list[float]] = [[] for _ in prompts]
        while engine.llm_engine.has_unfinished_requests():
            for output in engine.llm_engine.step():
                number = int(output.request_id.split("-")[0])
                tokens = list(output.outputs[0].token_ids)
                times[number] += [time.perf_counter() - start] * (len(tokens) - len(made[number]))
                made[number] = tokens
        return made, times

    def run(concurrency: int) -> Answer:
        prompts = make_prompts(concurrency, settings["prompt_tokens"], vocabulary)
        watch = Stopwatch()
        made, times = run_all(prompts, settings["new_tokens"])
        spent = watch.read()
        gaps = [after - before for one in times for before, after in pairwise(one)]
        return {
            **spent,
            "num_tokens": sum(map(len, made)),
            "first_seconds": [one[0] for one in times],
            "gaps": gaps,
        }

    def check() -> Answer:
        count, length, new = check_case(settings)
        return {"digests": digests(run_all(make_prompts(count, length, vocabulary), new)[0])}

    tasks = {f"run-{count}": functools.partial(run, count) for count in settings["concurrency"]}
    return {"check": check, **tasks}


def main() -> None:
    """Work until standard input ends."""
    serve(prepare)
