"""Functions that users name in their settings."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from llmkit.errors import ConfigError


def load_function(place: str, setting: str) -> Callable[..., Any]:
    """The function at `file.py:name` or `module:name`; modules are looked for in the working directory too.

    Args:
        place: where it is.
        setting: what names it, for errors.
    Raises:
        ConfigError: it is not there, cannot be loaded, or is no function.
    """
    source, _, name = place.rpartition(":")
    if not source or not name:
        raise ConfigError(f"{setting}: '{place}' is neither 'file.py:function' nor 'module:function'")
    try:
        module = _from_file(Path(source)) if source.endswith(".py") else _from_module(source)
    except FileNotFoundError:
        raise ConfigError(f"{setting}: there is no file {Path(source).resolve()}") from None
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(f"{setting}: {source} cannot be loaded: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"{setting}: {source} has no function '{name}'; it has {', '.join(functions) or 'none'}")
    return found


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(path)
    name = f"llmkit_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None, "the name ends with .py"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up by its name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _from_module(name: str) -> ModuleType:
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    return importlib.import_module(name)
