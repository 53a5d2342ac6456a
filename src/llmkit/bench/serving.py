"""`llmkit bench serve`: a server under load, one that runs or one that is started for it."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmkit.bench import machine
from llmkit.bench.load import Load, Sent, first_model, make_prompts, send_all
from llmkit.bench.machine import ForeignLoad
from llmkit.bench.results import Findings, Result, document
from llmkit.bench.serving_table import show
from llmkit.bench.setup import tell_noise
from llmkit.errors import BenchError, PluginError
from llmkit.terminal import stderr_console

LOG_LINES = 8
PERCENTILES = (50, 90, 99)
SECONDS_TO_STOP = 20


@dataclass(frozen=True)
class ServeBench:
    """What to measure.

    Attributes:
        url: of a running server; None starts one.
        serve_arguments: command line of `llmkit serve` for a server that is started.
        model: the name that requests use; None asks the server.
        api_key: for a server that needs one.
        num_requests: of each setting.
        concurrency: requests in flight; each is a setting of its own.
        rates: requests a second; each is a setting of its own.
        input_tokens: tokens of each prompt.
        output_tokens: tokens of each completion.
        vocabulary: prompts are of tokens below it.
        num_warmups: requests before that do not count.
        seed: of prompts and gaps.
    """

    url: str | None
    serve_arguments: Sequence[str]
    model: str | None
    api_key: str | None
    num_requests: int
    concurrency: Sequence[int]
    rates: Sequence[float]
    input_tokens: int
    output_tokens: int
    vocabulary: int
    num_warmups: int
    seed: int


def measure(request: ServeBench) -> dict[str, Any]:
    """Measure what is asked for and show it on standard error.

    Returns: the JSON document.
    Raises:
        BenchError: there is no server, it does not start, or no request succeeds.
        PluginError: the packages of the extra `serve` are not there.
    """
    if find_spec("aiohttp") is None:
        raise PluginError("llmkit bench serve needs aiohttp: pip install 'llmkit[serve]'")
    load = ForeignLoad()
    limits = {"cores": len(machine.usable_cores())}
    findings = Findings()
    with _server(request) as url:
        model = request.model or asyncio.run(first_model(url, request.api_key))
        template = Load(url, model, request.api_key, [], request.output_tokens, None, None)
        prompts = make_prompts(request.num_warmups, request.input_tokens, request.vocabulary, request.seed)
        asyncio.run(send_all(replace(template, prompts=prompts, concurrency=1)))
        settings: list[tuple[int | None, float | None]] = [(count, None) for count in request.concurrency]
        settings += [(None, rate) for rate in request.rates]
        for number, (concurrency, rate) in enumerate(settings, start=1):
            findings.results.append(_measure_one(request, template, concurrency, rate, request.seed + number))
    show(findings)
    share = load.share()
    tell_noise(share)
    return document("bench serve", {**limits, "foreign_load": share}, findings)


def _measure_one(request: ServeBench, template: Load, concurrency: int | None, rate: float | None, seed: int) -> Result:
    name = f"serve/rate {rate:g}/s" if rate is not None else f"serve/concurrency {concurrency}"
    stderr_console().print(f"Measuring {name.partition('/')[2]} ...")
    prompts = make_prompts(request.num_requests, request.input_tokens, request.vocabulary, seed)
    sent, seconds = asyncio.run(
        send_all(replace(template, prompts=prompts, concurrency=concurrency, rate=rate, seed=seed))
    )
    settings = {
        "requests": request.num_requests,
        "input_tokens": request.input_tokens,
        "output_tokens": request.output_tokens,
        "model": template.model,
        "concurrency": concurrency,
        "requests_per_second": rate,
    }
    return Result(name, settings, figures(sent, seconds, request.input_tokens))


def figures(sent: Sequence[Sent], seconds: float, input_tokens: int) -> dict[str, Any]:
    """Throughput, and percentiles of what a user waits for.

    The time between tokens is taken over each whole completion, since a chunk may bring several of them.

    Args:
        sent: every request.
        seconds: from the first request to the last token.
        input_tokens: tokens of each prompt.
    Raises:
        BenchError: no request succeeded.
    """
    good = [one for one in sent if one.error is None]
    if not good:
        raise BenchError(f"none of {len(sent)} requests succeeded: {sent[0].error}")
    num_tokens = sum(one.num_tokens for one in good)
    waits = {
        "time_to_first_token_seconds": [one.times[0] - one.start for one in good],
        "inter_token_latency_seconds": [
            (one.times[-1] - one.times[0]) / (one.num_tokens - 1) for one in good if one.num_tokens > 1
        ],
        "request_seconds": [one.seconds for one in good],
    }
    found: dict[str, Any] = {
        "seconds": seconds,
        "num_succeeded": len(good),
        "num_failed": len(sent) - len(good),
        "errors": sorted({one.error for one in sent if one.error is not None})[:5],
        "requests_per_second": len(good) / seconds,
        "tokens_per_second": num_tokens / seconds,
        "input_tokens_per_second": input_tokens * len(good) / seconds,
        "num_output_tokens": num_tokens,
    }
    for name, values in waits.items():
        found |= {f"{name}_p{percent}": percentile(values, percent) for percent in PERCENTILES}
        found[f"{name}_mean"] = statistics.fmean(values) if values else None
    return found


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value below which so many percent of them lie, between neighbours in proportion; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@contextmanager
def _server(request: ServeBench) -> Iterator[str]:
    """The address of the server; one that was started ends with the block."""
    if request.url is not None:
        yield request.url.rstrip("/").removesuffix("/v1")
        return
    with tempfile.TemporaryDirectory(prefix="llmkit-bench-") as directory:
        log = Path(directory) / "serve.log"
        command = [sys.executable, "-m", "llmkit", "serve", "--port", "0", "--json", *request.serve_arguments]
        stderr_console().print(f"Starting llmkit serve {' '.join(request.serve_arguments)} ...", markup=False)
        with log.open("w") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(os.environ))
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                process.wait()
                said = "\n".join(log.read_text().splitlines()[-LOG_LINES:])
                raise BenchError(f"llmkit serve did not start:\n{said}")
            yield json.loads(line)["url"]
        finally:
            process.stdout.close()
            process.terminate()
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
