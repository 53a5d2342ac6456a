"""From settings to a fleet: what is started, and where."""

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from llmkit.config.servers import ServerEngineConfig
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.inference.remote.contract import Fleet
from llmkit.engines.servers.command import Command, write_command
from llmkit.engines.servers.environments import find_program, note_seen
from llmkit.engines.servers.fleet import StartedFleet, given_fleet, tell_on_stderr
from llmkit.engines.servers.layout import Layout, lay_out
from llmkit.engines.servers.logs import log_directory
from llmkit.engines.servers.options import check_options, look_at_model, options_of
from llmkit.engines.servers.program import Additions, Program, Situation
from llmkit.engines.servers.server import SupervisedServer
from llmkit.formatting import listed

LOCAL_HOST = "127.0.0.1"
LOGS = "servers"
"""Directory of the logs in that of a run."""


@dataclass(frozen=True)
class Door:
    """Where servers listen.

    Attributes:
        host: address.
        port: of the only server; None gives each a free one.
        chat_template: Jinja file to use in place of the tokenizer's template; None leaves it to the server.
    """

    host: str = LOCAL_HOST
    port: int | None = None
    chat_template: Path | None = None


@dataclass(frozen=True)
class Plan:
    """Servers that could be started.

    Attributes:
        commands: one per server.
        layout: what they run on.
        directory: for their files and logs.
    """

    commands: tuple[Command, ...]
    layout: Layout
    directory: Path


def open_fleet(
    program: Program,
    config: ServerEngineConfig,
    context: EngineContext,
    *,
    additions: Additions | None = None,
    door: Door | None = None,
    tell: Callable[[str], None] = tell_on_stderr,
) -> Fleet:
    """Start servers and wait until they are ready, or take those that run already.

    Args:
        program: what to start.
        config: how.
        context: with which model, on what.
        additions: what a weight update needs besides.
        door: where they listen; None is this machine alone.
        tell: gets a line now and then while they start, and when one starts again.
    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start, or one that runs already does not answer.
    """
    if config.urls:
        key = None if config.api_key is None else config.api_key.get_secret_value()
        return given_fleet(config.urls, config.served_name, key)
    own = None if context.directory is None else str(context.directory / LOGS)
    directory = log_directory(config.log_dir or own, program.name)
    try:
        plan = plan_servers(program, config, context, directory, additions=additions, door=door)
    except BaseException:
        with suppress(OSError):  # others' files are in it, or it was there before
            directory.rmdir()
        raise
    tell(_announcement(program, plan))
    fleet = StartedFleet(
        [
            SupervisedServer(
                program,
                command,
                plan.directory / f"{program.name}-{index}.log",
                label=program.title if config.dp == 1 else f"{program.title} {index}",
                start_seconds=config.start_seconds,
                stop_seconds=config.stop_seconds,
                max_restarts=config.max_restarts,
                tell=tell,
            )
            for index, command in enumerate(plan.commands)
        ]
    )
    note_seen(program, plan.layout.device)
    return fleet


def plan_servers(
    program: Program,
    config: ServerEngineConfig,
    context: EngineContext,
    directory: Path,
    *,
    additions: Additions | None = None,
    door: Door | None = None,
) -> Plan:
    """Everything that can be known and refused before a server is started.

    Args:
        directory: for the servers' files and logs; nothing is written yet.
    Raises:
        ConfigError: a setting cannot be had.
        ModelError: the model cannot be used.
    """
    door = door or Door()
    found = find_program(program, config.python)
    # A trainer's threads are its own; where there is none, they are the servers'.
    threads = None if context.policy is not None else context.device.threads
    layout = lay_out(program, config, context.device.device, threads)
    model = look_at_model(context.model, program.title)
    options = options_of(config, context, model, layout.device)
    files = {"model": program.model_file(config, context.model), "chat_template": door.chat_template}
    options |= {name: str(path) for name, path in files.items() if path is not None}
    ports = [door.port] if door.port is not None else free_ports(config.dp)
    commands: list[Command] = []
    for index, port in enumerate(ports):
        situation = Situation(
            options=options | {"host": door.host, "port": port},
            device=layout.device,
            slots=layout.servers[index],
            architecture=model.architecture,
            for_training=context.policy is not None,
            context_length=model.context_length,
        )
        check_options(program, config, situation)
        command = write_command(
            program,
            situation,
            found=found,
            config_path=directory / f"{index}-{program.config_name}" if program.config_name else None,
            extra_args=config.extra_args,
            more=additions,
        )
        variables = {**layout.variables(index), **command.variables, **config.extra_env}
        commands.append(replace(command, variables=variables))
    return Plan(tuple(commands), layout, directory)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody has at the moment, all different."""
    with ExitStack() as held:
        ports: list[int] = []
        for _ in range(count):
            holder = held.enter_context(socket.socket())
            holder.bind((LOCAL_HOST, 0))
            ports.append(holder.getsockname()[1])
        return ports


def _announcement(program: Program, plan: Plan) -> str:
    count = len(plan.commands)
    servers = f"{count} servers of {program.title}" if count > 1 else program.title
    names = plan.layout.accelerators
    slots = (
        "+".join(",".join(names[one] if names else str(one) for one in slot) for slot in server)
        for server in plan.layout.servers
    )
    return f"Starting {servers} on {plan.layout.device} {listed(slots)}; logs in {plan.directory}"
