"""One process of a run whose engine has servers: `python -m tests.train.sharing OUT`, with torchrun's variables.

The servers are make-believe, the processes are not: what each of them learns of the servers is written to `OUT`.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from llmkit.config.parallel import ParallelConfig
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.distributed.world import joined, world
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.inference.remote.contract import Server, SharedServers
from llmkit.engines.servers.program import Program
from llmkit.errors import EngineError, LLMKitError
from llmkit.train.shared_servers import open_engine

SERVERS = (Server(0, "http://127.0.0.1:8001", "m", "secret"), Server(1, "http://127.0.0.1:8002", "m"))


@dataclass
class Fleet:
    """Servers of the first process."""

    servers: Sequence[Server] = SERVERS
    starts: list[int] = field(default_factory=lambda: [1, 1])
    failures: list[str | None] = field(default_factory=lambda: [None, None])

    def num_starts(self, index: int) -> int:
        return self.starts[index]

    def failure(self, index: int) -> str | None:
        return self.failures[index]

    def close(self) -> None:
        raise AssertionError("the engine closes it")


@dataclass
class Engine:
    """That of the first process; weights arrive at once."""

    fleet: Fleet = field(default_factory=Fleet)
    brought: list[int | None] = field(default_factory=lambda: [None, None])
    policy_adapter: str | None = None
    fails: bool = False

    async def load_weights(self, version: int) -> None:
        if self.fails:
            raise EngineError(f"sending weights: version {version} was lost")
        self.brought = list(self.fleet.starts)
        self.policy_adapter = f"policy-{version}"

    def current_starts(self) -> list[int | None]:
        return self.brought

    async def close(self) -> None:
        """Nothing runs."""


@dataclass
class Asking:
    """The engine of another process: it brings nothing, and knows what it is told."""

    shared: SharedServers
    loads: list[int] = field(default_factory=list)

    async def load_weights(self, version: int) -> None:
        await self.shared.sync.update([self.link(0), self.link(1)], version)
        self.loads.append(version)

    def link(self, index: int) -> Any:
        return SimpleNamespace(server=SERVERS[index])

    async def close(self) -> None:
        self.shared.sync.close()
        self.shared.fleet.close()


def build(config: Any, context: EngineContext) -> Any:
    """What a plugin's front has."""
    if context.shared is None:
        return Engine()
    assert [context.shared.fleet.num_starts(server.index) for server in SERVERS] == [1, 1]
    return Asking(context.shared)


def settled(look: Any, expected: Any) -> Any:
    """What a look comes to, at last."""
    deadline = time.monotonic() + 30
    while (found := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def restored(engine: Asking, index: int) -> str:
    try:
        asyncio.run(engine.shared.sync.restore(engine.link(index)))
    except EngineError as error:
        return str(error)
    return "restored"


def first(engine: Engine, load: Any, loop: asyncio.Runner) -> dict[str, Any]:
    """The first process: one server is started again, gets its weights back, and the other one is gone."""
    loop.run(load(3))
    world().gather("loaded")
    engine.fleet.starts[1] = 2
    world().gather("started again")
    world().gather("has looked")
    engine.brought[1] = 2
    world().gather("brought")
    engine.fleet.failures[0] = "it crashed too often"
    world().gather("gone")
    engine.fails = True
    return failing(load, loop)


def other(engine: Asking, load: Any, loop: asyncio.Runner) -> dict[str, Any]:
    """What another process knows at each of these."""
    fleet, found = engine.shared.fleet, {}
    loop.run(load(3))
    found["loads"] = list(engine.loads)
    found["servers"] = [[server.url, server.api_key] for server in fleet.servers]
    found["adapter"] = engine.shared.sync.adapter
    found["starts"] = [fleet.num_starts(0), fleet.num_starts(1)]
    world().gather("loaded")
    world().gather("started again")
    found["started again"] = settled(lambda: fleet.num_starts(1), 2)
    found["not yet"] = restored(engine, 1)
    world().gather("has looked")
    world().gather("brought")
    found["brought"] = settled(lambda: restored(engine, 1), "restored")
    world().gather("gone")
    found["gone"] = settled(lambda: fleet.failure(0), "it crashed too often")
    return found | failing(load, loop)


def failing(load: Any, loop: asyncio.Runner) -> dict[str, Any]:
    try:
        loop.run(load(4))
    except LLMKitError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": None}


def main(out: Path) -> None:
    torch.set_num_threads(1)
    front = SimpleNamespace(build=build, PROGRAM=Program("make-believe", "Make-believe", (), {}))
    context = EngineContext(ModelConfig(), DeviceConfig())
    parallel = ParallelConfig.model_validate({"timeout_seconds": 60})
    with (
        joined(parallel, torch.device("cpu")) as together,
        asyncio.Runner() as loop,
        open_engine(front, None, context, loop) as (engine, load),
    ):
        found = (first if together.is_main else other)(engine, load, loop)
        (out / f"{together.place.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
