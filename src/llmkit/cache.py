"""Where llmkit keeps what it can make again."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from llmkit.disk import sync
from llmkit.errors import TrainingError

SECONDS_PER_DAY = 24 * 3600


def cache_directory() -> Path:
    """`$LLMKIT_CACHE`, else `$XDG_CACHE_HOME/llmkit`, else `~/.cache/llmkit`."""
    if own := os.environ.get("LLMKIT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "llmkit"


def cached_directory(
    name: str,
    make: Callable[[Path], None],
    *,
    group: str = "models",
    is_whole: Callable[[Path], bool] = Path.is_dir,
) -> Path:
    """The directory `<group>/<name>` of the cache, made by `make` when it is not there.

    It appears as a whole or not at all; when several processes ask, one makes it and the others wait.

    Args:
        make: fills the empty directory that it is given.
        group: directory of the cache for entries of one kind.
        is_whole: whether an entry can be used; one that cannot is made again.
    Raises:
        TrainingError: the cache cannot be written; names the variable that moves it.
    """
    entries = cache_directory() / group
    final = entries / name
    if final.is_dir() and is_whole(final):
        _touch(final)
        return final
    try:
        entries.mkdir(parents=True, exist_ok=True)
        with (entries / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (final.is_dir() and is_whole(final)):
                shutil.rmtree(final, ignore_errors=True)
                _make_whole(entries / f"{name}.partial", final, make)
    except OSError as error:
        raise TrainingError(
            f"{entries}: the cache cannot be written: {error.strerror or error}; set LLMKIT_CACHE to another directory"
        ) from error
    return final


def remove_unused(group: str, days: float) -> None:
    """Remove the entries of a group that nobody asked for in the last `days` days, and what broken makings left."""
    entries = cache_directory() / group
    oldest = time.time() - days * SECONDS_PER_DAY
    for lock_file in entries.glob("*.lock"):
        with suppress(OSError), lock_file.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one that is being made is held by its maker
            for place in (lock_file.with_suffix(""), lock_file.with_suffix(".partial")):
                if place.is_dir() and place.stat().st_mtime < oldest:
                    shutil.rmtree(place)


def fingerprint(sources: Sequence[Path]) -> str:
    """A short name for the contents of files."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _make_whole(partial: Path, final: Path, make: Callable[[Path], None]) -> None:
    """Let `make` fill `partial`, and rename it when everything is on the disk."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        make(partial)
        for path in partial.rglob("*"):
            sync(path)
        sync(partial)
        partial.rename(final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync(final.parent)


def _touch(entry: Path) -> None:
    """Note that an entry is in use."""
    with suppress(OSError):  # of a cache that belongs to somebody else
        os.utime(entry)
