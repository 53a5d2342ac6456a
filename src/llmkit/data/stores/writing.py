"""Write the files of a store so that they appear as a whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmkit.disk import sync, writing


@contextmanager
def whole_files(path: Path, last: str | None = None) -> Iterator[Path]:
    """Write in a directory of one's own first: the block gets a path in it with the name of `path`.

    All files that are there when the block ends take their places beside `path`.

    Args:
        path: what to write.
        last: name of the file without which the others are not read; it comes last, and an old one goes first.
    Raises:
        TrainingError: the disk is full, or a file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        try:
            yield partial / path.name
            written = sorted(partial.iterdir(), key=lambda file: file.name == last)
            for file in written:
                sync(file)
            if last is not None:
                (path.parent / last).unlink(missing_ok=True)
            for file in written:
                os.replace(file, path.parent / file.name)
            sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
