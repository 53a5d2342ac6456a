"""Which environment has which server program: what `llmkit engines install` remembers."""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from llmkit.disk import write_text
from llmkit.engines.servers.program import Program
from llmkit.errors import ConfigError, EngineError, TrainingError


@dataclass(frozen=True)
class Environment:
    """Where a program is installed.

    Attributes:
        python: the environment's interpreter.
        managed: whether llmkit made the environment, in `directory`.
        directory: of the environment; None for somebody else's.
        version: of the program when it was remembered; empty where nobody knows.
    """

    python: str
    managed: bool = False
    directory: str | None = None
    version: str = ""


def data_directory() -> Path:
    """`$LLMKIT_DATA`, else `$XDG_DATA_HOME/llmkit`, else `~/.local/share/llmkit`: what cannot be made again quickly."""
    if own := os.environ.get("LLMKIT_DATA"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share").expanduser() / "llmkit"


def engines_directory() -> Path:
    """Where environments and what is known of them are."""
    return data_directory() / "engines"


def remembered(name: str) -> Environment | None:
    """The environment of an engine; None when there is none.

    Raises:
        EngineError: what was remembered cannot be read.
    """
    path = _record(name)
    try:
        return Environment(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise EngineError(f"{path}: cannot be read ({error}); run `llmkit engines install {name}` again") from error


def remember(name: str, environment: Environment) -> None:
    """Use this environment for an engine from now on.

    Raises:
        TrainingError: it cannot be written down.
    """
    engines_directory().mkdir(parents=True, exist_ok=True)
    write_text(_record(name), json.dumps(asdict(environment), indent=2) + "\n")


def find_program(program: Program, chosen: str | None) -> str:
    """The interpreter of a program's environment, or the program itself where it is no Python package.

    Args:
        chosen: the user's interpreter; None takes what is remembered.
    Raises:
        ConfigError: it is not installed, or what was chosen is no interpreter.
    """
    if program.executable:
        if chosen is not None:
            raise ConfigError(
                f"engine.python={chosen}: {program.title} is no Python package; put {program.executable} on the PATH"
            )
        found = shutil.which(program.executable)
        if found is None:
            raise ConfigError(f"{program.title}: no {program.executable} on the PATH. {program.how_to_install}")
        return found
    if chosen is not None:
        return interpreter(chosen, "engine.python")
    environment = remembered(program.name)
    if environment is None:
        raise ConfigError(
            f"{program.title} is not installed: {way_to_install(program)}, or set engine.python to the interpreter of "
            "an environment that has it"
        )
    if not os.access(environment.python, os.X_OK):
        raise ConfigError(
            f"{environment.python}: the environment of {program.title} has gone; {way_to_install(program)} again"
        )
    return environment.python


def way_to_install(program: Program) -> str:
    """What to type."""
    if program.recipes:
        return f"run `llmkit engines install {program.name}`"
    return f"{program.how_to_install}, then run `llmkit engines install {program.name} --python PATH`"


def interpreter(path: str, setting: str) -> str:
    """An interpreter as an absolute path; the directory of an environment will do.

    Raises:
        ConfigError: there is none.
    """
    place = Path(path).expanduser().absolute()  # not resolved: a link in an environment's `bin` is that environment
    if place.is_dir():
        place = place / "bin" / "python"
    if not (place.is_file() and os.access(place, os.X_OK)):
        raise ConfigError(f"{setting}={path}: no interpreter there; give the `bin/python` of an environment")
    return str(place)


def _record(name: str) -> Path:
    return engines_directory() / f"{name}.json"


def note_seen(program: Program, device: str) -> None:
    """Note that a server of this kind was ready on this machine, for `llmkit engines doctor`."""
    note = {"device": device, "date": date.today().isoformat()}
    with suppress(OSError, TrainingError):  # it is a note: servers work on where it cannot be written
        engines_directory().mkdir(parents=True, exist_ok=True)
        write_text(_seen(program.name), json.dumps(note) + "\n")


def last_seen(name: str) -> str | None:
    """`2026-11-21 on cpu`: when a server of this kind was last ready on this machine; None for never."""
    try:
        note = json.loads(_seen(name).read_text(encoding="utf-8"))
        return f"{note['date']} on {note['device']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seen(name: str) -> Path:
    return engines_directory() / f"{name}.seen.json"
