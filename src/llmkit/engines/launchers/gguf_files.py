"""Which GGUF file stands for a model, for the engines that load one."""

from pathlib import Path
from typing import Any

from llmkit.config.schema import ModelConfig
from llmkit.engines.launchers.launching import LauncherConfig
from llmkit.errors import ConfigError


class GGUFConfig(LauncherConfig):
    """What a server over a GGUF file can be told."""

    gguf: str | None = None
    """The GGUF file to load; unset takes the only one in `model.path`, which also has the tokenizer."""


def gguf_file(config: Any, model: ModelConfig) -> Path:
    """The file that llama.cpp loads.

    Args:
        config: of the engine; `gguf` names the file, unset takes the only one in the model's directory.
    Raises:
        ConfigError: there is none, or there are several.
    """
    if (chosen := config.gguf) is not None:
        path = Path(chosen).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"engine.gguf={chosen}: no such file; `llmkit convert checkpoint` writes GGUF files")
        return path
    found = sorted(Path(model.path).expanduser().absolute().glob("*.gguf"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no GGUF file"
        raise ConfigError(
            f"model.path={model.path} has {names}; name one with engine.gguf (`llmkit convert checkpoint` writes them)"
        )
    return found[0]
