"""The servers that `llmkit bench serve` measures: that run already, or are started for it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.bench.load import first_model
from llmkit.errors import BenchError, ConfigError
from llmkit.terminal import stderr_console

OURS = "llmkit"
DIRECT = "direct"
"""The server behind `llmkit serve`, asked without it."""
LOG_LINES = 8
SECONDS_TO_STOP = 20


@dataclass(frozen=True)
class Contender:
    """A server that answers.

    Attributes:
        name: what the results call it.
        url: without a path.
        model: that requests ask for.
        api_key: None where none is needed.
        front: id of a process that answers for servers in other processes; None where there is none.
    """

    name: str
    url: str
    model: str
    api_key: str | None = None
    front: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What is to be measured.

    Attributes:
        url: of a running server, measured first; None starts `llmkit serve`.
        serve_arguments: command line of `llmkit serve`.
        model: the name that requests to `url` use, and the path of the model for engines that are started.
        api_key: for `url`.
        peers: engines to start, addresses, or `direct`.
        python: interpreter of the environment with an engine; None takes the one that llmkit installed.
        directory: for logs.
    """

    url: str | None
    serve_arguments: Sequence[str]
    model: str | None
    api_key: str | None
    peers: Sequence[str]
    python: Path | None
    directory: Path


@contextmanager
def contenders(wanted: Wanted) -> Iterator[list[Contender]]:
    """All servers, ready; those that were started end with the block.

    Raises:
        BenchError, EngineError: a server does not start, or does not answer.
        ConfigError: there is no such peer, or no model to start it with.
        PluginError: a peer's plugin is not installed.
    """
    for peer in filter(is_engine, wanted.peers):
        _server_plugin(peer, wanted.model)  # before anything is started
    if DIRECT in wanted.peers and wanted.url is not None:
        raise ConfigError(f"--compare direct: where {wanted.url} has its server, nobody says; name its address instead")
    with ExitStack() as stack:
        behind: tuple[str, ...] = ()
        if wanted.url is None:
            front, behind = stack.enter_context(_llmkit_serve(wanted.serve_arguments, wanted))
            found = [front]
        else:
            name = OURS if not wanted.peers else wanted.url
            # Beside an engine that is started, the model is the path of what that one loads.
            model = None if any(map(is_engine, wanted.peers)) else wanted.model
            found = [_running(name, wanted.url, model, wanted.api_key)]
        for peer in wanted.peers:
            if peer == DIRECT:
                found.append(_running(DIRECT, _only(behind), None, wanted.api_key))
            elif is_engine(peer):
                found.append(stack.enter_context(engine(peer, wanted)))
            else:
                found.append(_running(peer, peer, None, wanted.api_key))
        yield found


def is_engine(peer: str) -> bool:
    """Whether a peer is one to start, and neither an address nor behind llmkit."""
    return peer != DIRECT and "://" not in peer


def _only(servers: tuple[str, ...]) -> str:
    """The server behind llmkit.

    Raises:
        ConfigError: there is none, or there are several.
    """
    if len(servers) != 1:
        raise ConfigError(
            f"--compare direct: {len(servers) or 'no'} servers are behind llmkit serve; it takes one: name an engine "
            "with a server of its own, such as --engine vllm, and leave engine.dp at 1"
        )
    return servers[0]


def _running(name: str, url: str, model: str | None, api_key: str | None) -> Contender:
    place = url.rstrip("/").removesuffix("/v1")
    return Contender(name, place, model or asyncio.run(first_model(place, api_key)), api_key)


@contextmanager
def _llmkit_serve(arguments: Sequence[str], wanted: Wanted) -> Iterator[tuple[Contender, tuple[str, ...]]]:
    """`llmkit serve`, and the addresses of the servers behind it."""
    log = wanted.directory / "serve.log"
    command = [sys.executable, "-m", "llmkit", "serve", "--port", "0", "--json", *arguments]
    stderr_console().print(f"Starting llmkit serve {' '.join(arguments)} ...", markup=False)
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(os.environ))
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            process.wait()
            end = "\n".join(log.read_text().splitlines()[-LOG_LINES:])
            raise BenchError(f"llmkit serve did not start:\n{end}")
        said = json.loads(line)
        ours, behind = _running(OURS, said["url"], None, wanted.api_key), tuple(said["servers"])
        yield (replace(ours, front=process.pid) if behind else ours), behind
    finally:
        process.stdout.close()
        process.terminate()
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def engine(name: str, wanted: Wanted) -> Iterator[Contender]:
    """A server program of a plugin, without llmkit before it; ends with the block.

    Raises:
        EngineError: it does not start.
        ConfigError: the plugin starts no server, or there is no model.
        PluginError: the plugin is not installed.
    """
    from llmkit.config.schema import DeviceConfig, ModelConfig
    from llmkit.engines.inference.contract import EngineContext
    from llmkit.engines.servers.opening import open_fleet

    plugin = _server_plugin(name, wanted.model)
    config = plugin.Config(python=None if wanted.python is None else str(wanted.python), log_dir=str(wanted.directory))
    context = EngineContext(ModelConfig(path=str(wanted.model)), DeviceConfig.model_validate({}), logprobs="raw")
    fleet = open_fleet(plugin.PROGRAM, config, context)
    try:
        (server,) = fleet.servers
        yield Contender(name, server.url, server.model, server.api_key)
    finally:
        fleet.close()


def _server_plugin(name: str, model: str | None) -> Any:
    """The front of an engine that is a server program."""
    plugin: Any = plugins.load("engines", name)
    if getattr(plugin, "PROGRAM", None) is None:
        raise ConfigError(
            f"--compare {name}: this engine is no server of its own; name vllm, sglang, direct or an address"
        )
    if model is None:
        raise ConfigError(f"--compare {name}: name the model that it is started with, --model DIR")
    return plugin
