"""`llmkit bench throughput` and `latency`: the native engine beside `generate` and vLLM, at several loads."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmkit.bench.generation_material import model_directory
from llmkit.bench.generation_metrics import latency_metrics, repeat_metrics, show, throughput_metrics
from llmkit.bench.results import Findings, Result, check_equal, ratios
from llmkit.bench.setup import Setup, open_setup
from llmkit.bench.timing import turns
from llmkit.bench.worker import Worker
from llmkit.terminal import stderr_console

OURS = "llmkit"
PEERS = {"hf": "hf_generate", "vllm": "vllm_generate"}
RATIOS = {
    "throughput": ("tokens_per_second", "tokens_per_cpu_second"),
    "latency": ("time_to_first_token_seconds_p50", "inter_token_latency_seconds_p50"),
}
CHECKED_DTYPE = "float32"
"""In fewer bits, equal tokens are a matter of luck."""
Runs = dict[str, list[dict[str, Any]]]
Make = Callable[[Mapping[str, Any]], Worker]


@dataclass(frozen=True)
class GenerationBench:
    """What to measure.

    Attributes:
        kind: what the figures are about.
        models: directories, or shapes that are made with random weights.
        concurrency: how many requests run side by side.
        dtype: of the weights and of what is computed.
        peers: of `hf` and `vllm`.
        python: interpreter of an environment with vLLM.
        repeats: runs of each contender that count.
        threads: cores and threads that each contender has.
        long_prompt_tokens: of the prompt that is asked twice.
    """

    kind: Literal["throughput", "latency"]
    models: tuple[str, ...]
    concurrency: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int
    dtype: str
    runner: str
    device: str
    peers: tuple[str, ...]
    python: Path | None
    repeats: int
    threads: int
    long_prompt_tokens: int = 2048


def measure(request: GenerationBench) -> dict[str, Any]:
    """Measure what is asked for and show it on standard error.

    Returns: the JSON document.
    Raises:
        ConfigError: there are fewer cores than threads, or no such model.
        BenchError: a contender failed, or made other tokens than llmkit.
    """
    findings = Findings()
    with open_setup(request.threads, request.repeats) as setup:
        for model in request.models:
            findings.add(_measure_model(request, model, setup, setup.limits["memory_gbps"]))
        return setup.document(f"bench {request.kind}", findings)


def _measure_model(request: GenerationBench, model: str, setup: Setup, memory_gbps: float) -> Findings:
    settings = {
        "model": str(model_directory(model, setup.directory)),
        "prompt_tokens": request.prompt_tokens,
        "new_tokens": request.new_tokens,
        "concurrency": list(request.concurrency),
        "context": request.prompt_tokens + request.new_tokens + 16,
        "runner": request.runner,
        "device": request.device,
        "long_prompt_tokens": request.long_prompt_tokens,
    }
    stderr_console().print(f"Measuring {model} ...")
    makers = _contenders(request, setup)
    if request.dtype != CHECKED_DTYPE and request.peers:
        with ExitStack() as stack:
            _check_tokens(_start(makers, {**settings, "dtype": CHECKED_DTYPE}, stack))
    with ExitStack() as stack:
        workers = _start(makers, {**settings, "dtype": request.dtype}, stack)
        if request.dtype == CHECKED_DTYPE:
            _check_tokens(workers)
        runs = {count: _runs(workers, f"run-{count}", request.repeats) for count in request.concurrency}
        repeats = _runs({OURS: workers[OURS]}, "repeat", request.repeats) if request.kind == "latency" else {}
    found = Findings()
    for count, by_name in runs.items():
        found.add(_findings(request, model, count, by_name, memory_gbps))
    if repeats:
        settings = {"model": model, "prompt_tokens": repeats[OURS][0]["prompt_tokens"]}
        found.results.append(Result("latency/llmkit, same prompt again", settings, repeat_metrics(repeats[OURS])))
    show(request.kind, model, found)
    return found


def _contenders(request: GenerationBench, setup: Setup) -> dict[str, Make]:
    def peer(name: str) -> Make:
        python = request.python if name == "vllm" else None
        return lambda settings: setup.peer(name, PEERS[name], settings, python)

    return {
        OURS: lambda settings: setup.ours(OURS, "generating", settings),
        **{one: peer(one) for one in request.peers},
    }


def _start(makers: Mapping[str, Make], settings: Mapping[str, Any], stack: ExitStack) -> dict[str, Worker]:
    return {name: stack.enter_context(make(settings)) for name, make in makers.items()}


def _check_tokens(workers: Mapping[str, Worker]) -> None:
    """Greedy tokens are everybody's, or speeds do not compare."""
    made: dict[str, Sequence[str]] = {name: worker.ask("check")["digests"] for name, worker in workers.items()}
    for name, found in made.items():
        check_equal(OURS, made[OURS], name, found)


def _runs(workers: Mapping[str, Worker], task: str, repeats: int) -> Runs:
    """Answers of everyone in turn, after a run each that does not count."""
    for worker in workers.values():
        worker.ask(task)
    answers: Runs = {name: [] for name in workers}
    for name in turns(list(workers), repeats):
        answers[name].append(workers[name].ask(task))
    return answers


def _findings(request: GenerationBench, model: str, concurrency: int, runs: Runs, memory_gbps: float) -> Findings:
    settings = {
        "model": model,
        "concurrency": concurrency,
        "prompt_tokens": request.prompt_tokens,
        "new_tokens": request.new_tokens,
        "dtype": request.dtype,
        "threads": request.threads,
        "repeats": request.repeats,
    }
    make = throughput_metrics if request.kind == "throughput" else latency_metrics
    metrics = {name: make(answers, concurrency, memory_gbps) for name, answers in runs.items()}
    compared = {
        name: {
            f"{metric}, {model}, {concurrency} at once": value
            for metric, value in ratios(metrics[OURS], theirs, RATIOS[request.kind]).items()
        }
        for name, theirs in metrics.items()
        if name != OURS and all(theirs[metric] for metric in RATIOS[request.kind])
    }
    return Findings([Result(f"{request.kind}/{name}", settings, one) for name, one in metrics.items()], compared)
