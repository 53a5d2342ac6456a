"""Where llmkit keeps what it can make again."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from llmkit.errors import TrainingError


def cache_directory() -> Path:
    """`$LLMKIT_CACHE`, else `$XDG_CACHE_HOME/llmkit`, else `~/.cache/llmkit`."""
    if own := os.environ.get("LLMKIT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "llmkit"


def cached_directory(name: str, make: Callable[[Path], None]) -> Path:
    """The directory `models/<name>` of the cache, made by `make` when it is not there.

    It appears as a whole or not at all; when several processes ask, one makes it and the others wait.

    Args:
        make: fills the empty directory that it is given.
    Raises:
        TrainingError: the cache cannot be written; names the variable that moves it.
    """
    models = cache_directory() / "models"
    final = models / name
    if final.is_dir():
        return final
    try:
        models.mkdir(parents=True, exist_ok=True)
        with (models / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not final.is_dir():
                partial = models / f"{name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                make(partial)
                partial.rename(final)
    except OSError as error:
        raise TrainingError(
            f"{models}: the cache cannot be written: {error.strerror or error}; set LLMKIT_CACHE to another directory"
        ) from error
    return final


def fingerprint(sources: Sequence[Path]) -> str:
    """A short name for the contents of files."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
