"""List engines, install their environments, and find out why one does not work."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmkit import plugins
from llmkit.config import flags
from llmkit.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from llmkit.engines.servers.program import Program

LIST_EXAMPLES = """\b
Examples:
  llmkit engines list
"""
INSTALL_EXAMPLES = """\b
Examples:
  llmkit engines install vllm                            an environment of its own, with the build for this machine
  llmkit engines install vllm --python ~/vllm/bin/python one that exists
  llmkit engines install vllm -- --extra-index-url URL   what comes after -- is for pip
"""
DOCTOR_EXAMPLES = """\b
Examples:
  llmkit engines doctor
  llmkit engines doctor vllm --json
"""

app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)


def _complete_name(incomplete: str) -> list[str]:
    return [name for name in plugins.names("engines") if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=_complete_name, help="Name of an engine.")]


@app.command("list", epilog=LIST_EXAMPLES)
def list_engines(as_json: flags.Json = False) -> None:
    """List engines: what runs in llmkit's own process, which servers are installed, where, and in which version."""
    rows = [_row(name) for name in plugins.names("engines")]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        typer.echo(f"{row['name']:<{width}}  {row['summary']}\n{'':<{width}}  {_state(row)}")


@app.command(epilog=INSTALL_EXAMPLES)
def install(
    name: Name,
    python: Annotated[
        str | None, typer.Option("--python", metavar="PATH", help="Remember this environment's interpreter; make none.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="Build to install: cpu, cuda, or auto for this machine's.")
    ] = "auto",
    pip_arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- PIP ARGUMENTS]", help="What pip is told besides.")
    ] = None,
    as_json: flags.Json = False,
) -> None:
    """Make an environment for a server engine, or remember one that exists."""
    from llmkit.engines.servers.environments import Environment, interpreter, remember
    from llmkit.engines.servers.installing import install as make
    from llmkit.engines.servers.layout import choose_device
    from llmkit.engines.servers.probing import probe

    program = program_of(name)
    if program.executable:
        raise ConfigError(f"{program.title} is no Python package. {program.how_to_install}")
    if python is None:
        environment = make(program, choose_device(program, device), pip_arguments or (), _tell)
    else:
        if pip_arguments:
            raise ConfigError(f"--python {python} installs nothing, so {' '.join(pip_arguments)} has no effect")
        path = interpreter(python, "--python")
        found = probe(program, path)
        if found.faults:
            raise ConfigError(f"--python {python} cannot be used for {program.title}: {'; '.join(found.faults)}")
        environment = Environment(path, version=found.version)
        remember(name, environment)
    _tell(f"{program.title} {environment.version} in {environment.python} is what `--engine {name}` starts now.")
    if as_json:
        typer.echo(json.dumps({"name": name, **asdict(environment)}, indent=2, ensure_ascii=False))


@app.command(epilog=DOCTOR_EXAMPLES)
def doctor(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", autocompletion=_complete_name, show_default="all", help="Name of an engine."),
    ] = None,
    as_json: flags.Json = False,
) -> None:
    """Look at the environments of server engines: interpreter, imports, versions, known faults. Starts no server.

    Ends with exit code 1 when one that is installed, or the one that was named, cannot be used.
    """
    names = [name] if name else [one for one in plugins.names("engines") if _program(one) is not None]
    reports = [examine(program_of(one)) for one in names]
    if as_json:
        typer.echo(json.dumps(reports, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n\n".join(_page(report) for report in reports))
    if any(report["faults"] and (report["installed"] or name) for report in reports):
        raise typer.Exit(1)


def program_of(name: str) -> "Program":
    """The server program behind an engine.

    Raises:
        ConfigError: the engine runs in llmkit's own process.
        PluginError: there is no such engine, or it cannot be imported.
    """
    plugins.find("engines", name)
    program = getattr(plugins.load("engines", name), "PROGRAM", None)
    if program is None:
        raise ConfigError(f"The engine '{name}' starts no server of its own: there is nothing to install or examine")
    return program


def examine(program: "Program") -> dict[str, Any]:
    """What is known of a server program on this machine, as plain values."""
    from llmkit.engines.servers.environments import find_program, last_seen, remembered
    from llmkit.engines.servers.layout import choose_device
    from llmkit.engines.servers.probing import probe

    report: dict[str, Any] = {
        "name": program.name,
        "title": program.title,
        "installed": False,
        "python": None,
        "managed": False,
        "version": "",
        "versions": {},
        "device": None,
        "faults": [],
        "last_ready_here": last_seen(program.name),
        "seen_running": program.seen_running,
    }
    try:
        path = find_program(program, None)
    except ConfigError as error:
        return report | {"faults": [str(error)]}
    report |= {"installed": True, "python": path}
    if not program.executable:
        environment, found = remembered(program.name), probe(program, path)
        report |= {"managed": environment is not None and environment.managed, "version": found.version}
        report |= {"versions": found.versions, "faults": list(found.faults)}
    try:
        report["device"] = choose_device(program, "auto")
    except ConfigError as error:
        report["faults"] = [*report["faults"], str(error)]
    return report


def _program(name: str) -> "Program | None":
    """None for an engine without a server, or one that cannot be imported; `llmkit plugins list` shows those."""
    try:
        return getattr(plugins.load("engines", name), "PROGRAM", None)
    except PluginError:
        return None


def _row(name: str) -> dict[str, Any]:
    """One engine, looked at from outside."""
    row = {"name": name, "summary": plugins.summary("engines", name), "kind": "in-process", "installed": True}
    try:
        program = getattr(plugins.load("engines", name), "PROGRAM", None)
    except PluginError as error:
        return row | {"kind": "broken", "installed": False, "detail": str(error)}
    if program is None:
        return row
    from llmkit.engines.servers.environments import find_program, remembered

    row |= {"kind": "server"}
    try:
        path = find_program(program, None)
    except ConfigError as error:
        return row | {"installed": False, "detail": str(error)}
    environment = None if program.executable else remembered(name)
    return row | {
        "path": path,
        "version": environment.version if environment else "",
        "managed": bool(environment and environment.managed),
    }


def _state(row: dict[str, Any]) -> str:
    if not row["installed"]:
        return row["detail"]
    if row["kind"] == "in-process":
        return "starts no server"
    owner = " (made by llmkit)" if row["managed"] else ""
    return f"{row['version'] or 'installed'} in {row['path']}{owner}"


def _page(report: dict[str, Any]) -> str:
    lines = [f"{report['name']}: {report['title']} {report['version']}".rstrip()]
    if report["installed"]:
        owner = " (made by llmkit)" if report["managed"] else ""
        lines += [f"  environment  {report['python']}{owner}"]
        lines += [f"  {package:<11}  {version}" for package, version in report["versions"].items()]
        lines += [f"  device       {report['device'] or 'none'}"]
    ready = report["last_ready_here"]
    lines += [f"  last ready   {ready}" if ready else "  last ready   never on this machine"]
    seen = report["seen_running"]
    lines += [
        f"  tested with  {seen}" if seen else "  tested with  its documentation alone: llmkit's tests never ran it"
    ]
    lines += [f"  fault        {fault}" for fault in report["faults"]]
    return "\n".join(lines)


def _tell(text: str) -> None:
    typer.echo(text, err=True)
