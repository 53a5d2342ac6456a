"""Making an environment for a server program: beside what is there, and remembered when it is whole."""

import fcntl
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llmkit.engines.servers.environments import Environment, engines_directory, remember, remembered
from llmkit.engines.servers.probing import probe
from llmkit.engines.servers.program import Device, Program, Recipe
from llmkit.errors import ConfigError, EngineError
from llmkit.formatting import format_seconds

STEP_SECONDS = 3600.0
"""Time for one call of pip."""
NEWS = ("Downloading ", "Installing collected", "Building ", "Successfully installed")
"""Beginnings of pip's lines that tell how far it is."""
NEWS_CHARACTERS = 100


def install(program: Program, device: Device, pip_arguments: Sequence[str], tell: Callable[[str], None]) -> Environment:
    """Make an environment with the program's build for a device; the former one goes when the new one is whole.

    Args:
        pip_arguments: what pip is told besides, such as where packages are.
        tell: gets a line now and then.
    Raises:
        ConfigError: llmkit does not know how to make one.
        EngineError: pip failed, or the result cannot be used; the former environment is as it was.
    """
    recipe = program.recipes.get(device)
    if recipe is None:
        raise ConfigError(
            f"llmkit cannot install {program.title} for {device}. {program.how_to_install}; then name it: "
            f"llmkit engines install {program.name} --python PATH"
        )
    parent = engines_directory()
    parent.mkdir(parents=True, exist_ok=True)
    with _alone(parent / f"{program.name}.lock", program):
        former = remembered(program.name)
        _remove_leftovers(program, former)
        directory = parent / f"{program.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            environment = _make(program, recipe, directory, pip_arguments, tell)
            remember(program.name, environment)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        _remove_leftovers(program, environment)
    return environment


def _make(
    program: Program, recipe: Recipe, directory: Path, pip_arguments: Sequence[str], tell: Callable[[str], None]
) -> Environment:
    log = engines_directory() / f"{program.name}.log"
    python = directory / "bin" / "python"
    pip = [str(python), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    add = [*pip, "install", "--progress-bar", "off", *pip_arguments]
    steps = [[sys.executable, "-I", "-m", "venv", str(directory)]]
    steps += [[*add, "--no-deps", *recipe.without_dependencies]] if recipe.without_dependencies else []
    steps += [[*add, *recipe.packages]]
    steps += [[*pip, "uninstall", "--yes", *recipe.remove]] if recipe.remove else []
    tell(f"Installing {program.title} in {directory}; everything that is said goes to {log}")
    began = time.monotonic()
    log.write_text("", encoding="utf-8")
    for step in steps:
        _run(step, log, lambda line: tell(f"  {line} ({format_seconds(time.monotonic() - began)})"))
    for package, version in recipe.metadata.items():
        _add_metadata(python, package, version)
    found = probe(program, str(python))
    if found.faults:
        raise EngineError(f"{program.title} was installed and cannot be used: {'; '.join(found.faults)} (log: {log})")
    return Environment(str(python), managed=True, directory=str(directory), version=found.version)


def _run(command: Sequence[str], log: Path, tell: Callable[[str], None]) -> None:
    """Run one step; its output goes to the log, and news of it to `tell`.

    Raises:
        EngineError: it failed, or took too long.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    limit = threading.Timer(STEP_SECONDS, process.kill)
    limit.start()
    last: list[str] = []
    try:
        assert process.stdout is not None
        with process.stdout as lines, log.open("a", encoding="utf-8") as file:
            for line in lines:
                file.write(line)
                last = [*last[-5:], line.rstrip()]
                if line.strip().startswith(NEWS):
                    tell(line.strip()[:NEWS_CHARACTERS])
        code = process.wait()
    finally:
        limit.cancel()
        process.kill()
        process.wait()
    if code != 0:
        said = "\n".join(f"  | {line}" for line in last)
        raise EngineError(f"{' '.join(command)} failed (exit code {code}; log: {log}):\n{said}{_hint(last)}")


def _hint(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    if "No matching distribution" in text and "+cpu" in text:
        return "\nGive pip an index of PyTorch builds for CPUs: `llmkit engines install NAME -- --extra-index-url URL`"
    if "No space left" in text:
        return "\nMake room, or set LLMKIT_DATA to a directory on a larger disk"
    return ""


def _add_metadata(python: Path, package: str, version: str) -> None:
    """Tell the environment that a package is there which is there under another name."""
    command = [str(python), "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    directory = Path(done.stdout.strip()) / f"{package.replace('-', '_')}-{version}.dist-info"
    directory.mkdir(exist_ok=True)
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (directory / "INSTALLER").write_text("llmkit\n")
    files = "".join(f"{directory.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD"))
    (directory / "RECORD").write_text(files)


def _remove_leftovers(program: Program, current: Environment | None) -> None:
    """Remove the environments that llmkit made for a program, all but the one that it uses."""
    kept = None if current is None or current.directory is None else Path(current.directory)
    for path in engines_directory().glob(f"{program.name}-*"):
        if path.is_dir() and path != kept:
            shutil.rmtree(path)


@contextmanager
def _alone(path: Path, program: Program) -> Iterator[None]:
    """Keep others from installing the same program meanwhile."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(f"{program.title} is being installed by another process; wait until it is done") from None
        yield
