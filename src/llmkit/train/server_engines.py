"""Engines that start servers: what is known of them before anything is loaded or started."""

from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.config.runs import GRPORun
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.servers.opening import plan_servers
from llmkit.engines.servers.program import Program

SIZES = ("tp", "pp", "dp", "dtype", "memory_share", "cache_memory_gb", "max_running", "max_model_len")
"""Settings that decide how much memory servers take."""


def program_of(front: Any) -> Program | None:
    """The program that an engine's front starts as servers; None where the engine is no such."""
    return getattr(front, "PROGRAM", None)


def asks_servers(run: GRPORun) -> bool:
    """Whether the run's engine draws with servers, and takes no memory in the trainer's process."""
    return program_of(plugins.load("engines", run.engine.name)) is not None


def check_engine(run: GRPORun) -> None:
    """Refuse what would keep the engine's servers from starting.

    Raises:
        PluginError: the engine is not installed.
        ConfigError: there is no environment to start its servers in, it does not have a setting, or the model or the
            machine does not allow it.
    """
    config: Any = run.engine
    program = program_of(plugins.load("engines", config.name))
    if program is not None and not getattr(config, "urls", ()):
        plan_servers(program, config, EngineContext(run.model, run.device), Path())


def describe_servers(run: GRPORun) -> str:
    """What a dry run says of servers that it does not start."""
    settings: Any = run.engine
    chosen = [f"engine.{name}={getattr(settings, name)}" for name in SIZES if getattr(settings, name, None) is not None]
    return (
        f"engine.name={run.engine.name}: no server was started. Memory and times above are the trainer's alone, "
        f"without generation; servers have memory of their own ({', '.join(chosen) or 'by their own defaults'})"
    )
