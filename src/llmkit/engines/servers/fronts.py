"""What is known of a run's engine before anything is loaded: whether it can be trained with, and start its servers."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.config.section import PluginSection
from llmkit.engines.inference.contract import EngineContext
from llmkit.engines.servers.opening import plan_servers
from llmkit.engines.servers.program import Program
from llmkit.errors import ConfigError, PluginError


def program_of(front: Any) -> Program | None:
    """The program that an engine's front starts as servers; None where the engine is no such."""
    return getattr(front, "PROGRAM", None)


def check_takes_weights(name: str) -> None:
    """Refuse an engine that a policy in training cannot be sampled with.

    Raises:
        PluginError: the engine is not installed.
        ConfigError: nobody brings it the weights; names the engines that can.
    """
    if _takes_weights(plugins.load("engines", name)):
        return
    able = []
    for other in plugins.names("engines"):
        # Whoever asks for an engine that is broken is told so; here it is none to choose.
        with suppress(PluginError):
            if _takes_weights(plugins.load("engines", other)):
                able.append(other)
    raise ConfigError(
        f"engine.name={name}: nobody brings the weights of a policy in training to this engine; those that sample from "
        f"it are {', '.join(able)}"
    )


def _takes_weights(front: Any) -> bool:
    """What an engine's front says of itself; one that says nothing takes them."""
    return getattr(front, "TAKES_WEIGHTS", True)


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
