"""Outputs that appear whole or not at all, and never in place of what they were made from."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from llmkit.convert.record import MANIFEST
from llmkit.disk import free_bytes, is_disk_full, sync
from llmkit.errors import ConfigError, ConvertError
from llmkit.formatting import format_bytes


@contextmanager
def new_directory(path: Path, inputs: Sequence[Path], *, overwrite: bool) -> Iterator[Path]:
    """Write a directory: the block fills one beside it, which takes its place when the block ends.

    Args:
        path: what to write.
        inputs: what it is made from, which must outlive it.
        overwrite: replace what an earlier conversion wrote there.

    Raises:
        ConfigError: it is there already, or is an input.
        ConvertError: the disk is full, or a file cannot be written.
    """
    check_output(path, inputs, overwrite=overwrite)
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise ConfigError(
            f"{path}: has no {MANIFEST}, so no conversion wrote it, and --overwrite leaves it alone; remove it, or "
            "write elsewhere"
        )
    with _beside(path) as partial:
        partial.mkdir()
        yield partial
        for file in partial.rglob("*"):
            sync(file)
        _take_place(partial, path)


def _take_place(partial: Path, path: Path) -> None:
    former = partial.with_name("former")
    if path.exists():
        path.rename(former)
    try:
        partial.rename(path)
    except OSError:
        if former.exists():
            former.rename(path)
        raise
    sync(path.parent)


@contextmanager
def new_files(path: Path, inputs: Sequence[Path], *, overwrite: bool) -> Iterator[Path]:
    """Write a file, and others beside it: all that the block writes where its path is, takes its place at the end.

    Args:
        path: the file to write.
        inputs: what it is made from.
        overwrite: replace a file that is there.

    Raises:
        ConfigError: it is there already, or is an input.
        ConvertError: the disk is full, or a file cannot be written.
    """
    check_output(path, inputs, overwrite=overwrite)
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory; name a file in it")
    with _beside(path) as partial:
        yield partial
        written = sorted(partial.parent.iterdir())
        others = [file.name for file in written if (path.parent / file.name).exists()]
        if others and not overwrite:
            raise _exists(path.parent / others[0])
        for file in written:
            sync(file)
        for file in written:
            os.replace(file, path.parent / file.name)
        sync(path.parent)


def check_output(path: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse an output that is there, or that would take an input with it.

    Raises:
        ConfigError: names both.
    """
    target = path.resolve()
    for source in inputs:
        real = source.resolve()
        if target == real or target in real.parents:
            raise ConfigError(f"{path}: is, or holds, what is converted ({source}); write elsewhere")
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise _exists(path)


def check_space(path: Path, num_bytes: int) -> None:
    """Refuse to begin what will not fit.

    Raises:
        ConvertError: the file system of `path` has less than `num_bytes` free.
    """
    free = free_bytes(path)
    if num_bytes > free:
        raise ConvertError(
            f"{path}: needs {format_bytes(num_bytes)}, and {format_bytes(free)} are free on this file system; make "
            "room, or write elsewhere"
        )


def _exists(path: Path) -> ConfigError:
    return ConfigError(f"{path}: is there already; --overwrite replaces it")


def _is_too_large(error: Exception) -> bool:
    """Whether the system cut a file off; torch only sees that it is shorter than what it wrote."""
    if isinstance(error, OSError):
        return error.errno == errno.EFBIG
    return "unexpected pos" in str(error)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path of the same name in a new directory on the same file system, which is removed in the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise ConvertError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        yield scratch / path.name
    except (OSError, SafetensorError, RuntimeError) as error:
        if is_disk_full(error):
            free = format_bytes(free_bytes(path.parent))
            raise ConvertError(
                f"{path}: no space left ({free} free on this file system); nothing was written. Make room, or write "
                "elsewhere"
            ) from error
        if _is_too_large(error):
            raise ConvertError(
                f"{path}: no file may be as large as this one, by the limit of this process (ulimit -f) or of the file "
                "system; nothing was written"
            ) from error
        if isinstance(error, OSError):
            raise ConvertError(f"{error.filename or path}: {error.strerror or error}") from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
