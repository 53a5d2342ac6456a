"""Engines that start servers: what is known of them before anything is loaded or started."""

from typing import Any

from llmkit import plugins
from llmkit.config.runs import GRPORun
from llmkit.engines.inference.contract import ServerFront

SIZES = ("tp", "pp", "dp", "dtype", "memory_share", "cache_memory_gb", "max_running", "max_model_len")
"""Settings that decide how much memory servers take."""


def asks_servers(run: GRPORun) -> bool:
    """Whether the run's engine draws with servers, and takes no memory in the trainer's process."""
    return isinstance(plugins.load("engines", run.engine.name), ServerFront)


def check_engine(run: GRPORun) -> None:
    """Refuse what would keep the engine from starting.

    Raises:
        PluginError: it is not installed, or there is no environment to start its servers in.
        ConfigError: it does not have a setting, or the machine does not allow it.
    """
    front = plugins.load("engines", run.engine.name)
    if isinstance(front, ServerFront):
        front.check_servers(run.engine, run.model)


def describe_servers(run: GRPORun) -> str:
    """What a dry run says of servers that it does not start."""
    settings: Any = run.engine
    chosen = [f"engine.{name}={getattr(settings, name)}" for name in SIZES if getattr(settings, name, None) is not None]
    return (
        f"engine.name={run.engine.name}: no server was started. Memory and times above are the trainer's alone, "
        f"without generation; servers have memory of their own ({', '.join(chosen) or 'by their own defaults'})"
    )
