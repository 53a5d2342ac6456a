"""What an environment has of a server program, found out by its own interpreter, without starting a server."""

import json
import os
import subprocess
from dataclasses import dataclass, field

from llmkit import machine
from llmkit.engines.servers.program import Program
from llmkit.engines.servers.variables import own_environment

PROBE_SECONDS = 300.0
SCRIPT = """
import importlib, importlib.metadata, json, platform, sys
asked = json.loads(sys.argv[1])
found = {"python": platform.python_version(), "versions": {}, "import_error": None}
for name in asked["packages"]:
    try:
        version = importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, KeyError):  # KeyError: its metadata has no version
        continue
    if version:
        found["versions"][name] = version
try:
    importlib.import_module(asked["module"])
except BaseException as error:
    found["import_error"] = f"{type(error).__name__}: {error}"
sys.stdout.write("\\n" + json.dumps(found) + "\\n")
"""


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        faults: what is wrong and what to do; empty when the program can be used.
        python: version of the interpreter.
        versions: of the packages that matter.
        version: of the program; empty where it is not there.
    """

    faults: tuple[str, ...]
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    version: str = ""


def probe(program: Program, python: str) -> Findings:
    """Ask an interpreter what it has: versions, whether the program can be imported, and known faults."""
    recipe = program.recipes.get("cpu")
    harmful = recipe.remove if recipe is not None else ()
    packages = list(dict.fromkeys((program.package, "torch", "transformers", *harmful)))
    asked = json.dumps({"packages": packages, "module": program.module})
    paths = () if machine.nvidia_gpus() else program.cpu_path
    variables = {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
    try:
        done = subprocess.run(
            [python, "-s", "-c", SCRIPT, asked],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
            env=own_environment() | variables,
            cwd="/",  # where nothing is that could be imported by mistake
        )
    except subprocess.TimeoutExpired:
        return Findings((f"{python} did not import {program.module} within {PROBE_SECONDS:g} s",))
    except OSError as error:
        return Findings((f"{python}: {error.strerror}",))
    try:
        found = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return Findings((f"{python} ended with exit code {done.returncode} and said: {last}",))
    versions = found["versions"]
    faults = _faults(program, python, versions, found["import_error"])
    return Findings(tuple(faults), found["python"], versions, versions.get(program.package, ""))


def _faults(program: Program, python: str, versions: dict[str, str], import_error: str | None) -> list[str]:
    faults: list[str] = []
    recipe = program.recipes.get("cpu")
    if recipe is not None and "+cpu" in versions.get("torch", ""):
        harmful = [name for name in recipe.remove if "+cpu" not in versions.get(name, "+cpu")]
        if harmful:
            faults.append(
                f"{', '.join(harmful)} is a build for CUDA beside a PyTorch for CPUs, and fails when it is imported: "
                f"{python} -m pip uninstall {' '.join(harmful)}"
            )
    if import_error is not None:
        faults.append(f"{program.module} cannot be imported: {import_error}")
    elif program.package and program.package not in versions:
        faults.append(
            f"there is no metadata of the package {program.package}, which it asks for its own version when it starts; "
            f"`llmkit engines install {program.name}` makes an environment that has it"
        )
    return faults
