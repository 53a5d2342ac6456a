"""Show what this machine has, which engines and extras are usable, and what to install for the rest."""

import json
import os
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from llmkit import machine, plugins
from llmkit.config import flags
from llmkit.formatting import format_bytes
from llmkit.plugins_requirements import PACKAGE, extras, installing, unmet, unmet_of_extra

EXAMPLES = """\b
Examples:
  llmkit doctor
  llmkit doctor --json
"""
PYTHON_VERSIONS = ((3, 11), (3, 13))
DEVELOPERS_EXTRA = "dev"
GIB = 1 << 30
LOW_DISK = 5 * GIB
LOW_MEMORY = 2 * GIB

app = typer.Typer(pretty_exceptions_enable=False)


@app.command(epilog=EXAMPLES)
def doctor(
    as_json: flags.Json = False,
) -> None:
    """Show versions, devices, threads, disks, engines and extras, and what to install for the rest.

    Ends with exit code 1 when something that everything needs is broken.
    """
    report = examine()
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else "\n".join(describe(report)))
    if report["errors"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """Everything that is found, as plain values; `errors` and `warnings` say what is wrong and what to do."""
    from llmkit.cache import cache_directory
    from llmkit.rollout.sandbox.protections import find_protections
    from llmkit.runs.environment import describe_machine
    from llmkit.versions import package_versions

    torch, torch_error = _torch()
    report: dict[str, Any] = {
        "versions": package_versions(),
        "processor": {**describe_machine(), "flags": machine.processor_flags()},
        "torch": torch,
        "threads": {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            "load_average": list(os.getloadavg()),
            "busy_cores": machine.busy_cores(),
        },
        "memory": machine.memory(),
        "disks": {
            "here": machine.disk(Path.cwd()),
            "hugging_face": machine.disk(_hugging_face_cache()),
            "llmkit": machine.disk(cache_directory()),
        },
        "compiler": machine.compiler(),
        "sandbox": asdict(find_protections()),
        "extras": _extras(),
        "plugins": _plugins(),
    }
    report["errors"] = [*([torch_error] if torch_error else []), *_errors(report)]
    report["warnings"] = _warnings(report)
    return report


def describe(report: dict[str, Any]) -> list[str]:
    """The report as lines for people."""
    processor, torch, threads, memory = (report[key] for key in ("processor", "torch", "threads", "memory"))
    lines = ["Versions", *(f"  {name} {version}" for name, version in report["versions"].items())]
    lines += [
        "",
        "Machine",
        f"  {processor['processor']}, {processor['num_cores']} cores ({' '.join(processor['flags'])})",
    ]
    lines += [
        f"  {gpu['name']}, {format_bytes(gpu['memory'])}, compute {gpu['capability']}" for gpu in torch.get("gpus", [])
    ]
    lines += [] if torch.get("gpus") else ["  Apple GPU" if torch.get("mps") else "  no GPU that PyTorch can use"]
    available = f", {format_bytes(memory['available'])} available" if memory["available"] is not None else ""
    lines += [f"  memory {format_bytes(memory['total'])}{available}"]
    busy = "unknown" if threads["busy_cores"] is None else f"{threads['busy_cores']:.1f}"
    omp = threads["OMP_NUM_THREADS"] or "not set"
    lines += [f"  {torch.get('threads', 'unknown')} threads (OMP_NUM_THREADS {omp}), {busy} cores busy"]
    lines += [f"  C++ compiler {report['compiler'] or 'none'}"]
    lines += [
        "",
        "Disks",
        *(f"  {format_bytes(disk['free'])} free in {disk['path']}" for disk in report["disks"].values()),
    ]
    lines += ["", "Sandbox for code that models write", f"  {_sandbox_line(report['sandbox'])}"]
    lines += ["", "Extras", *(f"  {name}: {_or_ok(hint)}" for name, hint in report["extras"].items())]
    lines += ["", "Plugins", *_plugin_lines(report["plugins"])]
    lines += ["", *(f"warning: {warning}" for warning in report["warnings"])]
    lines += [f"error: {error}" for error in report["errors"]] or ["Everything that is needed is here."]
    return lines


def _torch() -> tuple[dict[str, Any], str | None]:
    """What PyTorch sees, and what is wrong with it."""
    try:
        return machine.torch_devices(), None
    except (ImportError, OSError, RuntimeError) as error:  # a wheel for another machine, a driver that is too old
        return {}, f"PyTorch cannot be used: {error}. Install it again: pip install --force-reinstall torch"


def _extras() -> dict[str, str]:
    """What to type for each extra of llmkit; empty for one that is installed."""
    distribution = metadata.distribution(PACKAGE)
    return {
        extra: installing(extra) if unmet_of_extra(distribution, extra) else ""
        for extra in extras(distribution)
        if extra != DEVELOPERS_EXTRA
    }


def _plugins() -> list[dict[str, str]]:
    reports = [plugins.inspect(kind, name) for kind in plugins.KINDS for name in plugins.names(kind)]
    return [
        {
            "kind": one.plugin.kind,
            "name": one.plugin.name,
            "package": one.plugin.package,
            "state": one.state,
            "detail": one.detail,
        }
        for one in reports
    ]


def _errors(report: dict[str, Any]) -> list[str]:
    errors: list[str] = []
    lowest, highest = PYTHON_VERSIONS
    if not lowest <= tuple(map(int, platform.python_version_tuple()[:2])) <= highest:
        errors.append(f"Python {platform.python_version()} is not supported; use 3.11, 3.12 or 3.13")
    missing = unmet(metadata.distribution(PACKAGE))
    if missing:
        errors.append("Missing or of another version: pip install " + " ".join(f"'{one}'" for one in missing))
    for plugin in report["plugins"]:
        if plugin["package"] == PACKAGE and plugin["state"] in ("broken", "incompatible"):
            errors.append(f"{plugins.one(plugin['kind'])} '{plugin['name']}' {plugin['detail']}")
    return errors


def _warnings(report: dict[str, Any]) -> list[str]:
    warnings: list[str] = []
    busy, cores = report["threads"]["busy_cores"], report["processor"]["num_cores"]
    if busy is not None and busy > cores / 2:
        warnings.append(
            f"other processes keep {busy:.1f} of {cores} cores busy; training will be slower, and timings wrong"
        )
    available = report["memory"]["available"]
    if available is not None and available < LOW_MEMORY:
        warnings.append(f"only {format_bytes(available)} of memory are available")
    for disk in report["disks"].values():
        if disk["free"] < LOW_DISK:
            warnings.append(f"{disk['path']}: only {format_bytes(disk['free'])} free")
        if not disk["writable"]:
            warnings.append(f"{disk['path']}: cannot be written")
    if report["torch"].get("gpus"):
        warnings.append(
            "the kernels and CUDA graphs of the engine 'native' were tested without a GPU, and not seen on one; "
            "`make test-gpu` in a checkout compares them with transformers, and engine.runner=packed does without"
        )
    for plugin in report["plugins"]:
        if plugin["package"] != PACKAGE and plugin["state"] != "ok":
            warnings.append(f"{plugin['package']}: {plugins.one(plugin['kind'])} '{plugin['name']}' {plugin['detail']}")
    return warnings


def _plugin_lines(found: list[dict[str, str]]) -> list[str]:
    lines: list[str] = []
    for kind in plugins.KINDS:
        usable = [one["name"] for one in found if one["kind"] == kind and one["state"] == "ok"]
        lines += [f"  {kind}: {', '.join(usable)}"] if usable else []
        unusable = [one for one in found if one["kind"] == kind and one["state"] != "ok"]
        lines += [f"    {one['name']}: {one['state']}: {one['detail']}" for one in unusable]
    return lines


def _hugging_face_cache() -> Path:
    home = os.environ.get("HF_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "huggingface"


def _sandbox_line(sandbox: dict[str, Any]) -> str:
    holding = [name for name, holds in sandbox["holding"].items() if holds]
    missing = [name for name, holds in sandbox["holding"].items() if not holds]
    parts = [f"limits hold: {', '.join(holding) or 'none'}", f"missing: {', '.join(missing)}" if missing else ""]
    return "; ".join(filter(None, [*parts, sandbox["problem"] and f"no isolation: {sandbox['problem']}"]))


def _or_ok(hint: str) -> str:
    return hint or "ok"
