"""A small server program in all its moods, supervised as real ones are."""

import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmkit.engines.servers.command import Command
from llmkit.engines.servers.opening import free_ports
from llmkit.engines.servers.program import Hint, Program, Stage
from llmkit.engines.servers.server import SupervisedServer

SCRIPT = Path(__file__).with_name("small_server.py")
SMALL = Program(
    name="small",
    title="Small",
    command=("{python}", str(SCRIPT)),
    options={},
    stages=(Stage("loading weights", "loading weights"), Stage("opening the port", "opening its port")),
    hints=(Hint("of another planet", "Bring it home first"),),
)
PATIENCE = 60.0


class Nursery:
    """Makes supervised servers, and looks at their processes."""

    def __init__(self, directory: Path) -> None:
        self.pids = directory / "pids"
        self.log = directory / "small.log"
        self.told: list[str] = []
        self._made: list[SupervisedServer] = []

    def command(self, *faults: str, arguments: tuple[str, ...] = (), **fields: Any) -> Command:
        (port,) = free_ports(1)
        words = [sys.executable, str(SCRIPT), "--port", str(port), "--pids", str(self.pids), *arguments]
        words += [word for fault in faults for word in ("--fault", fault)]
        return Command(**{
            "arguments": tuple(words), "variables": {}, "url": f"http://127.0.0.1:{port}", "model": "small",
        } | fields)  # fmt: skip

    def server(self, *faults: str, **settings: Any) -> SupervisedServer:
        made = SupervisedServer(
            SMALL,
            settings.pop("command", None) or self.command(*faults),
            self.log,
            label="Small",
            tell=self.told.append,
            **{"start_seconds": 60, "stop_seconds": 10, "max_restarts": 3, "back_off_seconds": (0.01, 0.02)} | settings,
        )
        self._made.append(made)
        return made

    def started(self, *faults: str, **settings: Any) -> SupervisedServer:
        server = self.server(*faults, **settings)
        server.start()
        assert server.wait_until_settled(PATIENCE)
        return server

    def processes(self) -> list[int]:
        """Process ids that the server wrote down."""
        return [int(pid) for pid in self.pids.read_text().split()]

    def stop_all(self) -> None:
        for server in self._made:
            server.ask_to_stop()
            server.join()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    nursery.stop_all()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


def wait_for(fact: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < end, f"{what} did not come to pass"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def crash(url: str) -> None:
    """Have a server kill itself."""
    try:
        get(f"{url}/crash")
    except OSError:
        return
    raise AssertionError("it answered")
