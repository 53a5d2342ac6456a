"""Engines that start servers: what is known of them before anything is loaded or started."""

from typing import Any

from llmkit import plugins
from llmkit.config.runs import GRPORun
from llmkit.engines.servers.fronts import program_of

SIZES = ("tp", "pp", "dp", "dtype", "memory_share", "cache_memory_gb", "max_running", "max_model_len")
"""Settings that decide how much memory servers take."""


def asks_servers(run: GRPORun) -> bool:
    """Whether the run's engine draws with servers, and takes no memory in the trainer's process."""
    return program_of(plugins.load("engines", run.engine.name)) is not None


def describe_servers(run: GRPORun) -> str:
    """What a dry run says of servers that it does not start."""
    settings: Any = run.engine
    chosen = [f"engine.{name}={getattr(settings, name)}" for name in SIZES if getattr(settings, name, None) is not None]
    return (
        f"engine.name={run.engine.name}: no server was started. Memory and times above are the trainer's alone, "
        f"without generation; servers have memory of their own ({', '.join(chosen) or 'by their own defaults'})"
    )
