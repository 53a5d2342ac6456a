"""Writing files so that a full disk or a kill never harms what was written before."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmkit.errors import TrainingError
from llmkit.formatting import format_bytes

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# safetensors and torch hide the operating system's error in a text of their own.
DISK_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the file system of `path`, or of its nearest parent that exists."""
    for place in (path, *path.absolute().parents):
        if place.exists():
            return shutil.disk_usage(place).free
    return 0


def is_disk_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that there is no space left."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError) and current.errno in DISK_FULL:
            return True
        if any(text in str(current) for text in DISK_FULL_TEXTS):
            return True
        current = current.__cause__ or current.__context__
    return False


def write_failure(path: Path, error: BaseException) -> TrainingError:
    """The error to show when writing `path` failed."""
    if is_disk_full(error):
        return no_space(path)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return TrainingError(f"{path}: cannot be written: {reason}")


def no_space(path: Path) -> TrainingError:
    """The error to show when the disk was full while `path` was written."""
    free = format_bytes(free_bytes(path.parent))
    return TrainingError(
        f"{path}: no space left ({free} free on this file system). What was saved before is intact: "
        "make room and go on with --resume"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating-system error of the block into a `TrainingError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise write_failure(path, error) from error


def sync(path: Path) -> None:
    """Wait until a file's content, or a directory's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` in one go: whoever reads it finds the old content or the new, never a part.

    Lone surrogates, which UTF-8 cannot hold, are written as backslash escapes.

    Raises:
        TrainingError: the disk is full or `path` cannot be written; the old content is still there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        try:
            partial.write_bytes(text.encode("utf-8", "backslashreplace"))
            sync(partial)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
