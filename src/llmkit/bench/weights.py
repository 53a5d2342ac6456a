"""`llmkit bench weights`: how long servers wait for new weights, by each way that these can come."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from llmkit import plugins
from llmkit.bench import machine
from llmkit.bench.results import Findings, Result
from llmkit.bench.setup import open_setup
from llmkit.bench.table import show_part
from llmkit.bench.timing import spread, summary
from llmkit.bench.weights_material import make_policy, served_model, weight_bytes
from llmkit.config.resolve import resolve
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.config.section import PluginKind, PluginSection, Section, all_defaults
from llmkit.engines.inference.contract import Demand, EngineContext
from llmkit.errors import ConfigError
from llmkit.models.policy import Policy
from llmkit.terminal import stderr_console

DEMAND = Demand(num_completions=16, max_tokens=1024)
"""What the servers have to hold: the cache is not what is measured."""
STEP = 1e-3
"""By which weights move between two updates, so that none brings what is there already."""


class WeightsRun(Section):
    """Servers, and where the trainer is."""

    engine: Annotated[PluginSection, PluginKind("engines", "vllm")]
    """Whose servers get weights."""
    device: DeviceConfig = all_defaults(DeviceConfig)


@dataclass(frozen=True)
class WeightsBench:
    """What to measure.

    Attributes:
        engine: whose servers get weights.
        overrides: `engine.KEY=VALUE`, more of its settings, and `device.KEY=VALUE`.
        model: directory, or a shape that is made with random weights.
        transports: ways, by the names of `engine.sync.transport`.
        lora_rank: of the adapter that travels by the way `adapter`.
        repeats: updates of each way that count.
    """

    engine: str
    overrides: Sequence[str]
    model: str
    transports: tuple[str, ...]
    lora_rank: int
    repeats: int


def measure(request: WeightsBench) -> dict[str, Any]:
    """Measure what is asked for and show it on standard error.

    Returns: the JSON document.
    Raises:
        ConfigError: the engine has no servers that take weights, or none by one of these ways.
        EngineError: a server did not start, or an update failed.
    """
    front: Any = plugins.load("engines", request.engine)
    if "sync" not in front.Config.model_fields:
        raise ConfigError(f"--engine {request.engine}: no servers that take a trainer's weights; name vllm or sglang")
    findings = Findings()
    with open_setup(len(machine.usable_cores()), request.repeats) as setup:
        runs = {way: settings_of(request, way, setup.directory) for way in request.transports}
        model = served_model(request.model, setup.directory)
        for transport, run in runs.items():
            stderr_console().print(f"Measuring {transport} ...")
            findings.results.append(_measure_way(request, front, run, model, transport))
        show_part("weights", findings)
        return setup.document("bench weights", findings)


def _measure_way(request: WeightsBench, front: Any, run: WeightsRun, model: Path, transport: str) -> Result:
    """One way, with servers of its own."""
    is_adapter = transport == "adapter"
    config: Any = run.engine
    source = ModelConfig(path=str(model), dtype="float32")
    policy = make_policy(source, run.device, request.lora_rank if is_adapter else None)
    began = time.perf_counter()
    with asyncio.Runner() as runner:
        engine = front.build(config, EngineContext(source, run.device, policy, demand=DEMAND))
        start_seconds = time.perf_counter() - began
        try:
            first, *seconds = [
                runner.run(_update(engine, policy, version)) for version in range(1, request.repeats + 2)
            ]
        finally:
            runner.run(engine.close())
    settings = {
        "engine": request.engine,
        "model": request.model,
        "servers": config.dp,
        "tp": config.tp,
        "device": policy.device.type,
        "repeats": request.repeats,
        **({"lora_rank": request.lora_rank} if is_adapter else {}),
    }
    metrics = _metrics(seconds, first, start_seconds)
    num_bytes = weight_bytes(policy, is_adapter=is_adapter)
    return Result(f"weights/{transport}", settings, {**metrics, "num_bytes": num_bytes})


def settings_of(request: WeightsBench, transport: str, directory: Path) -> WeightsRun:
    """The servers' settings for one way; bfloat16 where nothing else is said, as servers mostly have it.

    Raises:
        ConfigError: a setting is wrong.
    """
    options = {
        "engine.name": ("--engine", request.engine),
        "engine.sync.transport": ("--transport", transport),
        "engine.dtype": ("--engine", "bfloat16"),
        "engine.log_dir": ("--engine", str(directory)),
    }
    return resolve(WeightsRun, command="bench/weights", options=options, overrides=request.overrides).run


async def _update(engine: Any, policy: Policy, version: int) -> float:
    """Seconds of one update: from the pause to the servers that go on."""
    _move(policy)
    started = time.perf_counter()
    await engine.load_weights(version)
    return time.perf_counter() - started


@torch.no_grad()
def _move(policy: Policy) -> None:
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            parameter += STEP * torch.randn_like(parameter)


def _metrics(seconds: Sequence[float], first: float, start_seconds: float) -> dict[str, float]:
    """Of the updates after the first, which makes connections and compares what servers say with the policy."""
    return {
        **summary(seconds),
        "spread": spread(seconds),
        "first_seconds": first,
        "start_seconds": start_seconds,
    }
