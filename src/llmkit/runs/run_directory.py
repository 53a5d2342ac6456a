"""The directory that holds all that a run made.

config.yaml         the resolved configuration; its first line names the command
environment.json    versions, machine, commit, command line of the newest start, and of earlier ones
metrics.jsonl       one object per step
checkpoints/        step-N/ directories, see `checkpoints.py`
rollouts/           sampled completions, one JSONL file per logged step
rollouts.jsonl      those of `llmkit rollout`, with header.json, errors.jsonl and summary.json
report.html, *.png  curves and samples
run.lock            which process writes here
"""

import builtins
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from llmkit.disk import free_bytes, write_text
from llmkit.errors import CheckpointError, TrainingError
from llmkit.formatting import format_bytes
from llmkit.runs.environment import describe_environment
from llmkit.runs.lock import RunLock

MIN_FREE_BYTES = 32_000_000
"""A run does not start with less space than this on its file system."""
HEADER = "# llmkit "


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run, held for this process alone until it is closed.

    Attributes:
        path: the directory.
        command: as the resolver writes it, `train/grpo`.
        resumed: whether the run goes on from what the directory holds.
        lock: this process's claim on it; None in the processes of a parallel run that do not write.
    """

    path: Path
    command: str
    resumed: bool
    lock: RunLock | None

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def write_start(self, config_text: str, command_line: Sequence[str] | None = None) -> None:
        """Record what starts here: `config.yaml` and `environment.json`.

        To be called once the configuration is known to fit what the directory holds. A resumed run keeps a
        configuration that changed as `config.before-start-N.yaml`, and adds its environment to the earlier ones.

        Args:
            config_text: the resolved configuration as YAML; the line that names the command is put first.
            command_line: None takes this process's own.

        Raises:
            TrainingError: the disk is full or the directory cannot be written.
        """
        header = f"{HEADER}{spoken(self.command)}\n"
        text = config_text if config_text.startswith(header) else header + config_text
        earlier = read_starts(self.environment) if self.resumed else []
        if self.resumed and self.config.exists():
            former = self.config.read_text(encoding="utf-8")
            if former != text:
                write_text(self.path / f"config.before-start-{len(earlier) + 1}.yaml", former)
        write_text(self.config, text)
        environment = {**describe_environment(command_line), "earlier_starts": earlier}
        write_text(self.environment, json.dumps(environment, indent=2, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Let other processes write here. Closing twice is allowed."""
        if self.lock is not None:
            self.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open(
    command: str,
    *,
    output_dir: str | Path | None = None,
    name: str | None = None,
    resume: bool = False,
    root: Path = Path("runs"),
) -> RunDirectory:
    """Claim the directory of a new run, or of one that goes on.

    Args:
        command: `train/grpo`, or `train grpo`.
        output_dir: where the run lives; None makes `root/<name>-<YYYYmmdd-HHMMSS>`, or, when resuming, takes the newest
            run of this command below `root`.
        name: start of a new directory's name; None takes the command's last word.
        resume: go on with the run that is there.
        root: where runs without an `output_dir` live.

    Raises:
        CheckpointError: the directory holds another run or foreign files, is in use, or cannot be made; when resuming,
            it holds no run of this command.
        TrainingError: there is hardly any space left.
    """
    command = key(command)
    if resume:
        path = Path(output_dir) if output_dir is not None else latest_run(command, root)
        check_resumable(path, command)
    elif output_dir is not None:
        path = Path(output_dir)
        make_directory(path)
        check_unused(path, command)
    else:
        path = make_new(root, name or command.rsplit("/", 1)[-1])
    check_space(path)
    try:
        return RunDirectory(path, command, resume, RunLock(path / "run.lock"))
    except OSError as error:
        raise unusable(path, error) from error


def join(path: Path, command: str, *, resume: bool) -> RunDirectory:
    """The directory that another process of this run has opened.

    Raises:
        CheckpointError: it cannot be seen from here.
    """
    if not path.is_dir():
        raise CheckpointError(
            f"{path}: the first process made this run directory, and {socket.gethostname()} does not see it; runs on "
            "several machines need an --output-dir on a file system that all of them share"
        )
    return RunDirectory(path, key(command), resume, None)


def make_new(root: Path, name: str) -> Path:
    """Make `root/<name>-<YYYYmmdd-HHMMSS>`, with a number behind it when two runs begin in one second."""
    make_directory(root)
    stem = f"{Path(name).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    for attempt in range(1, 1000):
        path = root / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise unusable(path, error) from error
        return path
    raise CheckpointError(f"{root / stem}: a thousand runs began in this second; choose an --output-dir")


def make_directory(path: Path) -> None:
    """Make `path` and its parents, unless it is there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise CheckpointError(f"{path}: is a file; choose a directory with --output-dir") from error
    except OSError as error:
        raise unusable(path, error) from error


def check_unused(path: Path, command: str) -> None:
    """Refuse a directory in which somebody's work would be mixed with the new run's.

    A run that failed before its first step has made nothing, and its directory may be used again.
    """
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise unusable(path, error) from error
    former = command_of(path)
    if former is None and set(names) - {"run.lock"}:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise CheckpointError(
            f"{path}: holds files that are no run of llmkit: {shown}. Choose a new or empty directory with --output-dir"
        )
    if former is not None and (work := describe_work(path)):
        way_out = "go on with it with --resume, or choose" if former == command else "choose"
        raise CheckpointError(
            f"{path}: holds a run of `llmkit {spoken(former)}` ({work}); {way_out} another --output-dir"
        )


def check_resumable(path: Path, command: str) -> None:
    """Refuse a directory that holds no run of `command`."""
    former = command_of(path)
    if former is None:
        what = "holds no run" if path.is_dir() else "is a file" if path.exists() else "does not exist"
        raise CheckpointError(f"{path}: {what}; give --resume the --output-dir of a run, or start one without --resume")
    if former != command:
        raise CheckpointError(
            f"{path}: holds a run of `llmkit {spoken(former)}`, not of `llmkit {spoken(command)}`; "
            "resume it with the command that began it"
        )


def check_space(path: Path, min_free_bytes: int = MIN_FREE_BYTES) -> None:
    """Refuse a file system that is as good as full."""
    free = free_bytes(path)
    if free < min_free_bytes:
        raise TrainingError(
            f"{path}: no space left for a run ({format_bytes(free)} free, at least {format_bytes(min_free_bytes)} "
            "needed). Make room or choose another --output-dir"
        )


def describe_work(path: Path) -> str:
    """What a run in `path` has achieved, in words; empty when it never took a step."""
    metrics = path / "metrics.jsonl"
    checkpoints = sorted((path / "checkpoints").glob("step-*"), key=lambda step: (len(step.name), step.name))
    parts: list[str] = []
    if metrics.exists() and metrics.stat().st_size:
        num_lines = metrics.read_bytes().count(b"\n")
        parts.append(f"{num_lines} {'line' if num_lines == 1 else 'lines'} of metrics")
    if (rollouts := path / "rollouts.jsonl").exists() and rollouts.stat().st_size:
        parts.append(rollouts.name)
    if checkpoints:
        parts.append(f"checkpoint {checkpoints[-1].name}")
    return ", ".join(parts)


def latest_run(command: str, root: Path = Path("runs")) -> Path:
    """The run of `command` below `root` that was started or resumed last.

    Raises:
        CheckpointError: there is none.
    """
    command = key(command)
    found = [path.parent for path in root.glob("*/config.yaml") if command_of(path.parent) == command]
    if not found:
        raise CheckpointError(
            f"{root}: no run of `llmkit {spoken(command)}` to resume; "
            "name one with --output-dir, or start without --resume"
        )
    return max(found, key=lambda path: (path / "config.yaml").stat().st_mtime_ns)


def run_to_resume(command: str, settings: Mapping[str, tuple[str, Any]], overrides: Sequence[str]) -> Path:
    """The directory that `--resume` by itself means: the one that is named, or the newest run of the command.

    Args:
        settings: what was set by options: key -> (flag, value).
        overrides: arguments of `--set`.

    Raises:
        CheckpointError: there is no run to resume.
    """
    named = [text.partition("=")[2] for text in overrides if text.startswith("output_dir=")]
    if not named and "output_dir" in settings:
        named = [settings["output_dir"][1]]
    if not named:
        return latest_run(command)
    directory = Path(named[-1])
    check_resumable(directory, command)
    return directory


def command_of(path: Path) -> str | None:
    """The command of the run in `path`, as `train/grpo`; None when `path` holds no run."""
    try:
        with builtins.open(path / "config.yaml", encoding="utf-8", errors="replace") as file:
            first = file.readline(200)
    except OSError:
        return None
    return key(first.removeprefix(HEADER)) if first.startswith(HEADER) else None


def read_starts(path: Path) -> list[dict[str, object]]:
    """Environments of a run's starts, oldest first; empty when the file is missing or damaged."""
    try:
        newest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [*newest.pop("earlier_starts", []), newest] if isinstance(newest, dict) else []


def key(command: str) -> str:
    """`train grpo` and `train/grpo` as the resolver writes them: `train/grpo`."""
    return "/".join(command.replace("/", " ").split())


def spoken(command: str) -> str:
    """`train/grpo` as it is typed: `train grpo`."""
    return command.replace("/", " ")


def unusable(path: Path, error: OSError) -> CheckpointError:
    """The error for a directory that cannot be made or read."""
    return CheckpointError(f"{path}: cannot be used as a run directory: {error.strerror}; choose another --output-dir")
