"""Where servers' logs go, and what is read in them."""

import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llmkit.cache import cache_directory
from llmkit.engines.servers.program import Hint, Stage
from llmkit.errors import EngineError

KEPT_DAYS = 14
TAIL_LINES = 25
TAIL_BYTES = 64 << 10
LINE_CHARACTERS = 300
SECONDS_PER_DAY = 24 * 3600
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def log_directory(chosen: str | None, name: str) -> Path:
    """The directory for a fleet's logs, made; those that llmkit chose are removed after two weeks.

    Args:
        chosen: by the user; None takes a new one in the cache.
        name: of the engine.
    Raises:
        EngineError: it cannot be made.
    """
    try:
        if chosen is not None:
            path = Path(chosen).expanduser()
            path.mkdir(parents=True, exist_ok=True)
            return path
        return _new_directory(cache_directory() / "servers", f"{time.strftime('%Y%m%d-%H%M%S')}-{name}")
    except OSError as error:
        raise EngineError(
            f"{error.filename}: {error.strerror}; set engine.log_dir to a directory that can be written"
        ) from error


def _new_directory(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    oldest = time.time() - KEPT_DAYS * SECONDS_PER_DAY
    for old in parent.iterdir():
        with suppress(OSError):
            if old.stat().st_mtime < oldest:
                shutil.rmtree(old)
    for number in range(1, 1000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)  # a log may hold prompts
            return path
    raise FileExistsError(17, "a thousand directories of this name", str(parent / name))


class LogReader:
    """Lines that come to a log, and what of its start they tell."""

    def __init__(self, path: Path, stages: Sequence[Stage]) -> None:
        self.path = path
        self.doing = "starting"
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""
        self._stages = [(re.compile(stage.pattern), stage.doing) for stage in stages]

    def read(self) -> bool:
        """Read on. Returns whether it is doing something else now."""
        before = self.doing
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return False
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            self.doing = next((doing for pattern, doing in self._stages if pattern.search(text)), self.doing)
        return self.doing != before


def tail(path: Path) -> list[str]:
    """The last lines of a log that say something."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [ESCAPES.sub("", line.rpartition("\r")[2]).rstrip() for line in text.splitlines()]
    return [line[:LINE_CHARACTERS] for line in lines if line][-TAIL_LINES:]


def advice(path: Path, hints: Sequence[Hint]) -> str:
    """What to do about the failure that the end of a log tells of; empty when it is none that is known."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return next((hint.advice for hint in hints if re.search(hint.pattern, text)), "")


def story(path: Path, hints: Sequence[Hint]) -> str:
    """The way out, if there is one, and the end of the log, to go behind what happened."""
    way_out, lines = advice(path, hints), tail(path)
    shown = "\n".join(f"  | {line}" for line in lines) if lines else "  | (nothing)"
    return f"{f'. {way_out}' if way_out else ''}\nIts log {path} ends:\n{shown}"
