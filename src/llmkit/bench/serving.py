"""`llmkit bench serve`: servers under load, that run already or are started for it, one beside the other."""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmkit.bench import machine
from llmkit.bench.contenders import OURS, Contender, Wanted, contenders
from llmkit.bench.goals import Goals
from llmkit.bench.lengths import Traffic
from llmkit.bench.limits import limits_of, read_weights, shares
from llmkit.bench.load import Load, send_all
from llmkit.bench.machine import ForeignLoad
from llmkit.bench.results import Findings, Result, document, ratios
from llmkit.bench.serving_figures import COMPARED, Run, figures, keeping_up
from llmkit.bench.serving_table import show
from llmkit.bench.setup import tell_noise
from llmkit.bench.sweep import saturation
from llmkit.bench.timing import turns
from llmkit.errors import PluginError
from llmkit.terminal import stderr_console

OfMachine = Callable[[Sequence[Run]], Mapping[str, float]]
"""What of the machine some runs use."""


@dataclass(frozen=True)
class Pace:
    """When requests are sent.

    Attributes:
        concurrency: so many in flight; None sends them at a rate.
        rate: requests a second.
    """

    concurrency: int | None = None
    rate: float | None = None

    def __str__(self) -> str:
        return f"concurrency {self.concurrency}" if self.rate is None else f"rate {self.rate:g}/s"


@dataclass(frozen=True)
class ServeBench:
    """What to measure.

    Attributes:
        url: of a running server; None starts `llmkit serve`.
        serve_arguments: its command line.
        model: the name that requests to `url` use, and what peers are started with; None asks the server.
        api_key: for servers that need one.
        peers: engines to start beside it, addresses, or `direct`, the server behind it.
        python: interpreter of the environment of a peer.
        num_requests: of each run.
        paces: each is measured by itself.
        sweep_from: requests a second to begin the search for the highest rate with; None searches for none.
        traffic: what requests look like.
        goals: for goodput.
        repeats: runs of each pace and contender.
        num_warmups: requests before that do not count.
        seed: of prompts and gaps.
        stream: whether answers come as they are drawn, or whole.
    """

    url: str | None
    serve_arguments: Sequence[str]
    model: str | None
    api_key: str | None
    peers: Sequence[str]
    python: Path | None
    num_requests: int
    paces: Sequence[Pace]
    sweep_from: float | None
    traffic: Traffic
    goals: Goals
    repeats: int
    num_warmups: int
    seed: int
    stream: bool = True


def measure(request: ServeBench) -> dict[str, Any]:
    """Measure what is asked for and show it on standard error.

    Returns: the JSON document.
    Raises:
        BenchError: there is no server, it does not start, or no request succeeds.
        PluginError: the packages of the extra `serve`, or a peer's plugin, are not there.
    """
    if find_spec("aiohttp") is None:
        raise PluginError("llmkit bench serve needs aiohttp: pip install 'llmkit[serve]'")
    load = ForeignLoad()
    limits: dict[str, Any] = {"cores": len(machine.usable_cores())}
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="llmkit-bench-") as directory:
        weights = read_weights(request.model)
        if weights is not None:  # before servers start, of which some never rest
            limits |= limits_of(weights.dtype, machine.usable_cores(), Path(directory))
        of_machine = partial(shares, weights=weights, limits=limits)
        wanted = Wanted(request.url, request.serve_arguments, request.model, request.api_key, request.peers,
                        request.python, Path(directory))  # fmt: skip
        with contenders(wanted) as servers:
            for server in servers:
                _send(request, server, Pace(concurrency=1), request.seed, request.num_warmups)
            for number, pace in enumerate(request.paces, start=1):
                findings.add(_side_by_side(request, servers, pace, request.seed + 1000 * number, of_machine))
            if request.sweep_from is not None:
                for server in servers:
                    findings.add(_sweep(request, server, request.sweep_from, of_machine))
    show(findings)
    share = load.share()
    tell_noise(share)
    return document("bench serve", {**limits, "foreign_load": share}, findings)


def _side_by_side(
    request: ServeBench, servers: Sequence[Contender], pace: Pace, seed: int, of_machine: OfMachine
) -> Findings:
    """All contenders at one pace, in turn; a round sends everyone the same requests, and no two rounds the same."""
    stderr_console().print(f"Measuring {pace} ...")
    runs: dict[str, list[Run]] = {server.name: [] for server in servers}
    by_name = {server.name: server for server in servers}
    for name in turns(list(by_name), request.repeats):
        runs[name].append(_send(request, by_name[name], pace, seed + len(runs[name]), request.num_requests))
    found = {name: {**figures(several, request.goals), **of_machine(several)} for name, several in runs.items()}
    results = [_result(request, by_name[name], pace, metrics) for name, metrics in found.items()]
    ours = servers[0].name
    compared = {
        peer: {f"{pace} {metric}": ratio for metric, ratio in _ratios(found[ours], theirs).items()}
        for peer, theirs in found.items()
        if peer != ours
    }
    return Findings(results, compared)


def _sweep(request: ServeBench, server: Contender, first_rate: float, of_machine: OfMachine) -> Findings:
    """Rates up to the highest that a server keeps up with."""
    found = Findings()

    def measure_at(rate: float) -> Mapping[str, Any]:
        pace = Pace(rate=rate)
        stderr_console().print(f"Measuring {server.name} at {pace} ...", markup=False)
        run = _send(request, server, pace, request.seed + 100_000 + len(found.results), request.num_requests)
        metrics = {**figures([run], request.goals), **of_machine([run]), "keeping_up": keeping_up(run)}
        found.results.append(_result(request, server, pace, metrics))
        return metrics

    highest = saturation(measure_at, first_rate)
    settings = {"model": server.model, "contender": server.name}
    found.results.append(Result(f"saturation/{server.name}", settings, {"saturation_requests_per_second": highest}))
    return found


def _send(request: ServeBench, server: Contender, pace: Pace, seed: int, count: int) -> Run:
    asks = request.traffic.requests(count, seed)
    load = Load(server.url, server.model, server.api_key, asks, pace.concurrency, pace.rate, seed, request.stream)
    before = _front_seconds(server)
    sent, seconds = asyncio.run(send_all(load))
    after = _front_seconds(server)
    return Run(asks, sent, seconds, None if before is None or after is None else after - before)


def _front_seconds(server: Contender) -> float | None:
    return None if server.front is None else machine.cpu_seconds(server.front)


def _result(request: ServeBench, server: Contender, pace: Pace, metrics: Mapping[str, Any]) -> Result:
    settings = {
        "requests": request.num_requests,
        **request.traffic.describe(),
        "model": server.model,
        "contender": server.name,
        "stream": request.stream,
        "concurrency": pace.concurrency,
        "requests_per_second": pace.rate,
    }
    # Rates may be asked for that are measured again by the sweep, and names of results are to differ.
    return Result(f"serve/{pace}" if server.name == OURS else f"serve/{server.name} {pace}", settings, metrics)


def _ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    return ratios(ours, theirs, [metric for metric in COMPARED if ours.get(metric) and theirs.get(metric)])
