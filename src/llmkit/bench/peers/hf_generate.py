"""`generate` of transformers: a batch as a whole, as its users run it."""

import functools
import time
from itertools import pairwise
from typing import Any

from .prompts import check_case, digests, make_prompts
from .serving import Answer, Stopwatch, serve


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Load the model; see `llmkit.bench.generation` for the settings."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.generation.streamers import BaseStreamer

    torch.set_num_threads(len(settings["cores"]))
    loaded: Any = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"]))
    model = loaded.eval()
    vocabulary = model.config.vocab_size

    class Clock(BaseStreamer):
        """When each token came; `generate` calls it with the prompt first."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    def generate(prompts: list[list[int]], count: int, **options: Any) -> Any:
        ids = torch.tensor(prompts)
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), min_new_tokens=count, max_new_tokens=count, do_sample=False,
            eos_token_id=None, pad_token_id=0, **options,
        )[:, ids.shape[1]:].tolist()  # fmt: skip

    def run(concurrency: int) -> Answer:
        prompts = make_prompts(concurrency, settings["prompt_tokens"], vocabulary)
        clock = Clock()
        start, watch = time.perf_counter(), Stopwatch()
        # The streamer takes a single sequence; larger batches show no token before the last.
        made = generate(prompts, settings["new_tokens"], **({"streamer": clock} if concurrency == 1 else {}))
        spent = watch.read()
        gaps = [after - before for before, after in pairwise(clock.times[1:])]
        first = [clock.times[1] - start] if concurrency == 1 else [spent["seconds"]] * concurrency
        return {**spent, "num_tokens": sum(map(len, made)), "first_seconds": first, "gaps": gaps}

    def check() -> Answer:
        count, length, new = check_case(settings)
        return {"digests": digests(generate(make_prompts(count, length, vocabulary), new))}

    tasks = {f"run-{count}": functools.partial(run, count) for count in settings["concurrency"]}
    return {"check": check, **tasks}


def main() -> None:
    """Work until standard input ends."""
    serve(prepare)
