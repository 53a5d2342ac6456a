"""A server as it is started: arguments, environment and files, written from the options."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmkit.engines.servers.options import key_of
from llmkit.engines.servers.program import (
    Additions,
    Argument,
    Entry,
    Flag,
    Option,
    Place,
    Program,
    Situation,
    Switch,
    Variable,
)
from llmkit.engines.servers.variables import own_environment
from llmkit.errors import ConfigError

MASK = "***"


@dataclass(frozen=True)
class Command:
    """One server, ready to start.

    Attributes:
        arguments: program and arguments.
        variables: what is added to the environment.
        url: where it will be.
        model: name of the model in requests.
        api_key: None for none.
        files: what has to be written before: path -> content.
    """

    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    url: str
    model: str
    api_key: str | None = None
    files: Mapping[Path, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """All variables of the server's process."""
        return own_environment() | dict(self.variables)

    def __str__(self) -> str:
        """As one would type it, without the key."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        line = " ".join([*variables, shlex.join(self.arguments)])
        return line.replace(self.api_key, MASK) if self.api_key else line


def write_command(
    program: Program,
    situation: Situation,
    *,
    found: str,
    config_path: Path | None = None,
    extra_args: Sequence[str] = (),
    more: Additions | None = None,
) -> Command:
    """Write one server's command line, environment and configuration file.

    Args:
        found: interpreter of the program's environment, or the program itself.
        config_path: where its configuration file goes, if it has one.
        extra_args: arguments that are passed on as they are.
        more: what a weight update needs besides.
    Raises:
        ConfigError: an extra argument is one that llmkit sets itself.
    """
    draft = _Draft(document=deepcopy(dict(program.config_base)))
    for name, places in program.options.items():
        if name in situation.options:
            for place in places:
                draft.write(name, place, situation.options[name])
    added = program.additions(situation) + (more or Additions())
    _check_extra(program, draft.owners, added, extra_args)
    for path, value in added.entries.items():
        put(draft.document, path, value)
    paths = {"PYTHONPATH": os.pathsep.join(added.python_path)} if added.python_path else {}
    if program.config_variable:
        paths[program.config_variable] = str(config_path)
    if program.config_flag:
        draft.arguments += [program.config_flag, str(config_path)]
    names = {"python": found, "program": found, "bin": Path(found).parent, "config": config_path}
    words = [part.format(**names) for part in program.command]
    return Command(
        arguments=(*words, *draft.bare, *draft.arguments, *added.arguments, *extra_args),
        variables=draft.variables | paths | dict(added.variables),
        url=f"http://{reachable(situation.options['host'])}:{situation.options['port']}",
        model=situation.options["served_name"],
        api_key=situation.options.get("api_key"),
        files={} if config_path is None else {config_path: json.dumps(draft.document, indent=2) + "\n"},
    )


@dataclass
class _Draft:
    """What options have been written as; `owners` is by the flag, variable or bare argument that they became."""

    document: dict[str, Any]
    bare: list[str] = field(default_factory=list[str])
    arguments: list[str] = field(default_factory=list[str])
    variables: dict[str, str] = field(default_factory=dict[str, str])
    owners: dict[str, Option] = field(default_factory=dict[str, Option])

    def write(self, name: Option, place: Place, value: Any) -> None:
        """Put an option where it goes."""
        match place:
            case Flag(flag, convert):
                written = convert(value)
                self.arguments += [] if written is None else [flag, str(written)]
                self.owners[spelled(flag)] = name
            case Switch(flag, when):
                self.arguments += [flag] if bool(value) is when else []
                self.owners[spelled(flag)] = name
            case Argument():
                self.bare.append(str(value))
                self.owners[spelled(name)] = name
            case Variable(variable, convert):
                self.variables[variable] = str(convert(value))
                self.owners[spelled(variable)] = name
            case Entry(path, convert):
                put(self.document, path, convert(value))


def reachable(host: str) -> str:
    """Under which name this machine finds a server that listens on an address."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    return f"[{'::1' if host == '::' else host}]" if ":" in host else host


def put(document: Any, path: Sequence[str | int], value: Any) -> None:
    """Set what a path of keys and list places leads to; sections on the way are made where they are missing."""
    head, *rest = path
    if not rest:
        document[head] = value
        return
    put(document.setdefault(head, {}) if isinstance(document, dict) else document[head], rest, value)


def spelled(flag: str) -> str:
    """A flag as programs compare it: many take `--max_len` for `--max-len`."""
    return flag.replace("_", "-")


def _check_extra(program: Program, owners: Mapping[str, Option], more: Additions, extra_args: Sequence[str]) -> None:
    """Refuse extra arguments that llmkit writes too: the program would take one of the two."""
    written = [*more.arguments, program.config_flag]
    fixed = {spelled(word.partition("=")[0]) for word in written if word.startswith("-")}
    for word in extra_args:
        if not word.startswith("-"):
            continue
        typed = word.partition("=")[0]
        flag = spelled(program.aliases.get(typed, typed))
        if flag in owners:
            raise ConfigError(f"{typed} is written from {key_of(owners[flag])}; set that instead")
        if flag in fixed:
            raise ConfigError(f"{typed} is one that llmkit sets itself for {program.title}; leave it out")
