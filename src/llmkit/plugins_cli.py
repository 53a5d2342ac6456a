"""Find, show, check and make plugins: engines, data sets, rewards, commands and all the rest."""

import json
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit import plugins
from llmkit.config import flags
from llmkit.errors import PluginError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

LIST_EXAMPLES = """\b
Examples:
  llmkit plugins list
  llmkit plugins list --kind engines
  llmkit plugins list --broken --json
"""
SHOW_EXAMPLES = """\b
Examples:
  llmkit plugins show gsm8k
  llmkit plugins show gsm8k --kind rewards
"""
NEW_EXAMPLES = """\b
Examples:
  llmkit plugins new reward politeness     make the package llmkit-politeness here
  llmkit plugins new engine fast --dir ~/src
"""
CHECK_EXAMPLES = """\b
Examples:
  llmkit plugins check llmkit-politeness   a package, installed or not
  llmkit plugins check echo                an installed plugin
"""


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in plugins.KINDS if kind.startswith(incomplete)]


def _complete_name(incomplete: str) -> list[str]:
    found = {name for kind in plugins.KINDS for name in plugins.names(kind)}
    return sorted(name for name in found if name.startswith(incomplete))


KindOption = Annotated[
    str | None,
    typer.Option("--kind", "-k", metavar="KIND", autocompletion=_complete_kind, help="Only plugins of this kind."),
]


@app.command("list", epilog=LIST_EXAMPLES)
def list_plugins(
    kind: KindOption = None,
    as_json: flags.Json = False,
    broken: Annotated[bool, typer.Option("--broken", help="Only those that cannot be used, and why.")] = False,
) -> None:
    """List what is installed, with its state: ok, missing requirement, incompatible or broken."""
    reports = [
        plugins.inspect(one, name)
        for one in ([plugins.kind_named(kind)] if kind else plugins.KINDS)
        for name in plugins.names(one)
    ]
    if broken:
        reports = [report for report in reports if report.state != "ok"]
    if as_json:
        typer.echo(json.dumps([_as_dict(report) for report in reports], indent=2, ensure_ascii=False))
        return
    if not reports:
        typer.echo("Every plugin is usable." if broken else "No plugin is installed.", err=True)
    _print_table(reports)


@app.command(epilog=SHOW_EXAMPLES)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=_complete_name, help="Name of a plugin.")],
    kind: KindOption = None,
    as_json: flags.Json = False,
) -> None:
    """Show what a plugin does, its options, where it comes from, and why it does not work if it does not."""
    reports = [plugins.inspect(one, name) for one in kinds_with(name, kind)]
    if as_json:
        typer.echo(json.dumps([_as_dict(report) for report in reports], indent=2, ensure_ascii=False))
        return
    typer.echo("\n\n".join(_page(report) for report in reports))


@app.command(epilog=NEW_EXAMPLES)
def new(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", autocompletion=_complete_kind, help="Kind: engine, reward, ...")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name by which the plugin is chosen.")],
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where to put the package.", show_default="here")
    ] = Path(),
) -> None:
    """Make a package with a working plugin of a kind, its tests and a README, ready to change and to pip-install."""
    from llmkit.plugins_new import create

    package = create(plugins.kind_named(kind), name, directory)
    typer.echo(package)
    path = package if package.is_absolute() else f"./{package}"  # pip takes a bare word for a name on the index
    typer.echo(f"Change it, then:\n  llmkit plugins check {path}\n  pip install -e {path}", err=True)


@app.command(epilog=CHECK_EXAMPLES)
def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="[PATH or NAME]", show_default="here", help="A package's directory, or a plugin's name."
        ),
    ] = ".",
    kind: KindOption = None,
) -> None:
    """Run the conformance tests on an installed plugin, or on a package's plugins followed by its own tests."""
    from llmkit.plugins_check import check_package, check_plugin

    if Path(target, "pyproject.toml").is_file():
        passed = check_package(Path(target))
    elif Path(target).is_dir():
        raise PluginError(f"{target}: no pyproject.toml here, so this is not a package; name its directory or a plugin")
    else:
        outcomes = [check_plugin(one, target) for one in kinds_with(target, kind)]
        passed = all(outcomes)
    if not passed:
        raise typer.Exit(1)


def kinds_with(name: str, kind: str | None) -> list[str]:
    """The kinds that have a plugin of this name.

    Raises:
        PluginError: none has; with a suggestion.
    """
    if kind:
        one = plugins.kind_named(kind)
        plugins.find(one, name)
        return [one]
    found = [one for one in plugins.KINDS if plugins.is_installed(one, name)]
    if not found:
        known = _complete_name("")
        raise PluginError(f"No plugin named '{name}'.{plugins.suggestion(name, known)} See `llmkit plugins list`.")
    return found


def _as_dict(report: plugins.Report) -> dict[str, Any]:
    plugin = report.plugin
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "summary": report.summary,
        "package": plugin.package,
        "version": plugin.version,
        "target": plugin.target,
        "state": report.state,
        "detail": report.detail,
    }


def _print_table(reports: Sequence[plugins.Report]) -> None:
    """One line per plugin, cut to the width of a terminal."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    width = max((len(report.plugin.name) for report in reports), default=0)
    former = None
    for report in reports:
        if report.plugin.kind != former:
            typer.echo(f"{'' if former is None else chr(10)}{report.plugin.kind}")
            former = report.plugin.kind
        note = report.summary if report.state == "ok" else f"{report.state}: {report.detail}"
        package = "" if report.plugin.package == "llmkit" else f"  ({report.plugin.package} {report.plugin.version})"
        typer.echo(f"  {report.plugin.name:<{width}}  {note}{package}"[:columns])


def _page(report: plugins.Report) -> str:
    plugin = report.plugin
    lines = [
        f"{plugin.name}: {report.summary or '(no summary)'}",
        f"  kind     {plugin.kind}",
        f"  package  {plugin.package} {plugin.version}",
        f"  target   {plugin.target}",
        f"  state    {report.state}{f': {report.detail}' if report.detail else ''}",
    ]
    if report.error is not None:
        trace = "".join(traceback.format_exception(report.error))
        lines += ["", *(f"  {line}" for line in trace.rstrip().splitlines())]
    elif plugin.kind not in ("commands", "presets") and report.state == "ok":
        lines += _options(plugins.load(plugin.kind, plugin.name).Config)
    return "\n".join(lines)


def _options(config: Any) -> list[str]:
    from llmkit.config.docs import describe

    lines: list[str] = []
    for name in config.model_fields:
        field = describe(config, name)
        default = " [required]" if field.is_required else f" [default: {field.default}]"
        lines.append(f"    {name}: {field.type_text}{f', {field.limits}' if field.limits else ''}{default}")
        lines += [f"        {field.help}"] if field.help else []
    return ["  options", *lines] if lines else ["  options  none"]
