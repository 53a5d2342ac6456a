"""What a run ran on: versions, machine, commit and command line."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmkit.versions import package_versions

SECRET_WORDS = "api[_-]?key|access[_-]?key|token|secret|password|passwd|credentials?"
SECRET_OPTION = re.compile(rf"^--?(?:[\w-]+[_-])?(?:{SECRET_WORDS})$", re.IGNORECASE)
SECRET_SETTING = re.compile(rf"^((?:[^=\s]*[._-])?(?:{SECRET_WORDS})=).+$", re.IGNORECASE | re.DOTALL)
URL_PASSWORD = re.compile(r"(\w+://[^/@:\s]*):[^/@\s]+@")
MASK = "***"


def mask_secrets(arguments: Sequence[str]) -> list[str]:
    """The command line with keys, tokens and passwords replaced by `***`."""
    masked: list[str] = []
    previous = ""
    for argument in arguments:
        if SECRET_OPTION.match(previous):
            masked.append(MASK)
        else:
            masked.append(URL_PASSWORD.sub(rf"\1:{MASK}@", SECRET_SETTING.sub(rf"\g<1>{MASK}", argument)))
        previous = argument
    return masked


def describe_environment(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Everything about this process and machine that `environment.json` records.

    Args:
        arguments: the command line; None takes this process's own.
    """
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": mask_secrets(sys.argv if arguments is None else arguments),
        "working_directory": os.getcwd(),
        "process_id": os.getpid(),
        "git_commit": git_commit(Path.cwd()),
        "versions": package_versions(),
        "machine": describe_machine(),
    }


def describe_machine() -> dict[str, Any]:
    """Name, system, processor, cores that this process may use, and memory in bytes."""
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "processor": processor_name(),
        "num_cores": num_usable_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def num_usable_cores() -> int:
    """Cores that this process may use, which inside a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """Model name of the processor, or its architecture when the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.machine()


def git_commit(directory: Path) -> str | None:
    """Commit that is checked out in `directory`, with `-dirty` when tracked files differ; None outside a repository."""
    if shutil.which("git") is None:
        return None
    command = ["git", "-C", str(directory), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # only look: never touch the repository's index
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
