"""Run the conformance tests of `llmkit.testing` on an installed plugin, or on a package that need not be installed."""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.errors import PluginError

GROUP = "llmkit."


def check_plugin(kind: str, name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a plugin passes. What pytest has to say goes to standard error.

    A test that needs settings or examples which only the author can give is skipped, and says so.
    """
    _say(f"{plugins.one(kind)} '{name}'")
    settings = ["-c", os.devnull, "--rootdir", tempfile.gettempdir()]
    return _pytest([*settings, "--pyargs", "llmkit.testing.installed"], {**environ, "LLMKIT_CHECK": f"{kind}/{name}"})


def check_package(directory: Path) -> bool:
    """Whether the plugins that a package declares pass, and then the package's own tests.

    Raises:
        PluginError: the package declares no plugin, or its pyproject.toml cannot be read.
    """
    project = _read_project(directory)
    groups: dict[str, dict[str, str]] = project.get("entry-points", {})
    declared = [
        (group.removeprefix(GROUP), name)
        for group, names in groups.items()
        if group.startswith(GROUP)
        for name in names
    ]
    if not declared:
        raise PluginError(
            f'{directory / "pyproject.toml"}: no [project.entry-points."llmkit.<kind>"] declares a plugin'
        )
    with tempfile.TemporaryDirectory(prefix="llmkit-check-") as metadata:
        _write_metadata(Path(metadata), project, groups)
        environ = {**os.environ, "PYTHONPATH": _python_path(Path(metadata), directory)}
        passed = [check_plugin(plugins.kind_named(kind), name, environ) for kind, name in declared]
        if (directory / "tests").is_dir():
            _say(f"tests of {project['name']}")
            passed.append(_pytest(["--rootdir", str(directory), str(directory / "tests")], environ))
    return all(passed)


def _read_project(directory: Path) -> dict[str, Any]:
    path = directory / "pyproject.toml"
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PluginError(f"{path}: {error}") from error
    except KeyError:
        raise PluginError(f"{path}: no [project] table, so this is not a package") from None
    if "name" not in project:
        raise PluginError(f"{path}: [project] has no name")
    return project


def _write_metadata(site: Path, project: Mapping[str, Any], groups: Mapping[str, Mapping[str, str]]) -> None:
    """What pip would write for the package, so that its entry points are found."""
    version = project.get("version", "0")
    info = site / f"{project['name'].replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project.get("dependencies", [])]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sections = (
        [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())] for group, names in groups.items()
    )
    (info / "entry_points.txt").write_text(
        "\n".join(line for section in sections for line in section), encoding="utf-8"
    )


def _python_path(metadata: Path, directory: Path) -> str:
    """The package and its metadata before everything else."""
    source = directory / "src" if (directory / "src").is_dir() else directory
    former = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(metadata), str(source.resolve()), *([former] if former else [])])


def _pytest(arguments: list[str], environ: Mapping[str, str]) -> bool:
    if find_spec("pytest") is None:
        raise PluginError("Checking plugins needs pytest: pip install pytest")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "--no-header", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, env=environ, stdout=sys.stderr, check=False).returncode == 0


def _say(what: str) -> None:
    print(f"\nChecking the {what}", file=sys.stderr, flush=True)
