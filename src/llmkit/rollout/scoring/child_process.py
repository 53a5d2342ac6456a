"""A child process, seen from the run."""

import asyncio
import os
import pickle
import signal
import socket
import subprocess
from contextlib import suppress
from typing import Any

from llmkit.rollout.scoring.child import HEADER_BYTES, Failure, Setup, command


class ChildDiedError(Exception):
    """The process ended in the midst of its work; the message says how."""


class ChildProcess:
    """One child: jobs go in one at a time, and results come out.

    It has a session of its own, so that Ctrl-C does not reach it and its own children can be killed with it.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, setup: Setup) -> "ChildProcess":
        """Start it and wait until it is ready.

        Raises:
            ChildDiedError: it ended before.
            Exception: what the setup raised.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                command(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                # What a reward prints must not get between the lines of `--json`.
                stdout=2,
                start_new_session=True,
            )
        child = cls(process, *await asyncio.open_unix_connection(sock=ours))
        try:
            await child._ask(setup)
        except BaseException:
            await child.close()
            raise
        return child

    @property
    def is_alive(self) -> bool:
        """Whether it could do a job."""
        return self._process.poll() is None

    async def call(self, job: bytes) -> Any:
        """The result of a job, which is a pickled tuple of arguments.

        Raises:
            ChildDiedError: the process ended.
            Exception: what the work raised, with its trace there as a note.
        """
        return await self._exchange(job)

    def kill(self) -> None:
        """End it, and what it started, at once; `close` waits for that."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._writer.close()

    async def close(self) -> None:
        """Kill it and see it gone."""
        self.kill()
        await asyncio.to_thread(self._process.wait)
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _ask(self, value: Any) -> Any:
        return await self._exchange(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))

    async def _exchange(self, frame: bytes) -> Any:
        try:
            self._writer.write(len(frame).to_bytes(HEADER_BYTES) + frame)
            await self._writer.drain()
            header = await self._reader.readexactly(HEADER_BYTES)
            answer = await self._reader.readexactly(int.from_bytes(header))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ChildDiedError(await self._how_it_ended()) from None
        result = pickle.loads(answer)
        if isinstance(result, Failure):
            raise result.error
        return result

    async def _how_it_ended(self) -> str:
        # A child that closed its socket and goes on is as good as dead.
        self.kill()
        code = await asyncio.to_thread(self._process.wait)
        if code >= 0:
            return f"ended its process with exit code {code}"
        why = " (the system ends processes so when memory runs out)" if code == -signal.SIGKILL else ""
        return f"ended its process by {signal.Signals(-code).name}{why}"
