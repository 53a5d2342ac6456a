"""What is known of a run's engine before anything is loaded: whether it starts servers, and whether it can."""

from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.config.section import PluginSection
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.servers.opening import plan_servers
from llmkit.engines.servers.program import Program


def program_of(front: Any) -> Program | None:
    """The program that an engine's front starts as servers; None where the engine is no such."""
    return getattr(front, "PROGRAM", None)


def check_servers(engine: PluginSection, model: ModelConfig, device: DeviceConfig) -> None:
    """Refuse what would keep the engine's servers from starting; nothing to do for other engines.

    Raises:
        PluginError: the engine is not installed.
        ConfigError: there is no environment to start its servers in, it does not have a setting, or the model or the
            machine does not allow it.
    """
    config: Any = engine
    program = program_of(plugins.load("engines", engine.name))
    if program is not None and not getattr(config, "urls", ()):
        plan_servers(program, config, EngineContext(model, device), Path())
