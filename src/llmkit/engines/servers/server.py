"""One server that llmkit started: watched, and started again when it crashes."""

import http.client
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from llmkit.engines.servers.command import Command
from llmkit.engines.servers.guarded import GuardedProcess, describe_exit
from llmkit.engines.servers.logs import LogReader, story
from llmkit.engines.servers.program import Program
from llmkit.errors import EngineError
from llmkit.formatting import format_seconds

POLL_SECONDS = 0.2
READY_SECONDS = 5.0
"""Time for one question whether a server is ready."""
BACK_OFF_SECONDS = (1.0, 60.0)
"""Wait before the first restart, doubled for each more within the hour; and the longest."""
RESTARTS_SECONDS = 3600.0
SIGN_OF_LIFE_SECONDS = 15.0


class SupervisedServer:
    """A place in a fleet: its process may change, its address does not.

    A thread of its own starts the server, tells how far it is, and starts it again after a crash. One that never became
    ready is not started again: it would fail the same way.
    """

    def __init__(
        self,
        program: Program,
        command: Command,
        log: Path,
        *,
        label: str,
        start_seconds: float,
        stop_seconds: float,
        max_restarts: int,
        tell: Callable[[str], None],
        back_off_seconds: tuple[float, float] = BACK_OFF_SECONDS,
    ) -> None:
        self.command = command
        self.log = log
        self.label = label
        self._program = program
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._max_restarts = max_restarts
        self._back_off_seconds = back_off_seconds
        self._tell = tell
        self._num_starts = 0
        self._failure: str | None = None
        self._ready = threading.Event()
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"llmkit-{label}", daemon=True)

    @property
    def num_starts(self) -> int:
        """How often it was started."""
        return self._num_starts

    @property
    def failure(self) -> str | None:
        """Why it is gone for good."""
        return self._failure

    def start(self) -> None:
        """Start it; returns at once."""
        self._thread.start()

    def wait_until_settled(self, seconds: float) -> bool:
        """Whether it is ready, or has failed, within some seconds."""
        return self._settled.wait(seconds)

    def ask_to_stop(self) -> None:
        """Stop it; returns at once."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until nothing of it is left, after `ask_to_stop`."""
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._keep_alive()
        except Exception as error:  # noqa: BLE001 - in a thread nobody would hear of it, and all would wait for ever
            self._failure = f"{self._where()} is not looked after any more: {type(error).__name__}: {error}"
        finally:
            self._settled.set()

    def _keep_alive(self) -> None:
        starts: deque[float] = deque()
        while not self._stopping.is_set():
            reason = self._live_once()
            self._ready.clear()
            if self._stopping.is_set():
                break
            now = time.monotonic()
            while starts and now - starts[0] > RESTARTS_SECONDS:
                starts.popleft()
            if not self._settled.is_set() or len(starts) >= self._max_restarts:
                again = f" (started again {len(starts)} times within an hour)" if starts else ""
                self._failure = f"{self._where()} {reason}{again}{story(self.log, self._program.hints)}"
                break
            starts.append(now)
            first, longest = self._back_off_seconds
            wait = min(longest, first * 2 ** (len(starts) - 1))
            self._tell(f"{self.label} {reason}; starting it again in {format_seconds(wait)} (log: {self.log})")
            self._stopping.wait(wait)

    def _live_once(self) -> str:
        """From start to end. Returns what ended it, to go on from the server's name."""
        self._num_starts += 1
        reader = LogReader(self.log, self._program.stages)
        try:
            process = GuardedProcess(self.command, self.log, self._stop_seconds)
        except EngineError as error:
            return f"could not be started: {error}"
        try:
            reason = self._wait_until_ready(process, reader)
            if reason is None:
                self._ready.set()
                self._settled.set()
                reason = self._wait_for_end(process)
            return reason
        finally:
            process.ask_to_stop()
            process.wait()

    def _wait_until_ready(self, process: GuardedProcess, reader: LogReader) -> str | None:
        """None once it answers, else what went wrong."""
        began = told = time.monotonic()
        while (spent := time.monotonic() - began) < self._start_seconds:
            has_news = reader.read()
            if has_news or time.monotonic() - told >= SIGN_OF_LIFE_SECONDS:
                told = time.monotonic()
                self._tell(f"{self.label}: {reader.doing} ({format_seconds(spent)})")
            if (code := process.exit_code()) is not None:
                return f"ended while {reader.doing}, after {format_seconds(spent)}: {describe_exit(code)}"
            if self._answers():
                self._tell(f"{self.label}: ready at {self.command.url} ({format_seconds(time.monotonic() - began)})")
                return None
            if self._stopping.wait(POLL_SECONDS):
                return "was stopped"
        return (
            f"did not answer within engine.start_seconds={self._start_seconds:g} (it was {reader.doing}); raise it if "
            "the machine is slow"
        )

    def _wait_for_end(self, process: GuardedProcess) -> str:
        began = time.monotonic()
        while (code := process.exit_code()) is None:
            if self._stopping.wait(POLL_SECONDS):
                return "was stopped"
        return f"ended after {format_seconds(time.monotonic() - began)}: {describe_exit(code)}"

    def _answers(self) -> bool:
        address = urlsplit(self.command.url)
        assert address.hostname is not None
        key = self.command.api_key
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=READY_SECONDS)
        try:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            connection.request("GET", self._program.ready_path, headers=headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):  # it does not listen yet, or does not answer
            return False
        finally:
            connection.close()

    def _where(self) -> str:
        return f"{self.label} ({self.command.url})"
