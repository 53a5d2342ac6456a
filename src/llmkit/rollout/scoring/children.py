"""Child processes that do jobs side by side, each with a deadline; one that overruns it is killed and replaced."""

import asyncio
import os
import pickle
import sys
from typing import Any

from llmkit.rollout.scoring.child import Setup
from llmkit.rollout.scoring.child_process import ChildDiedError, ChildProcess

START_SECONDS = 120.0
"""How long a child may take to start and to import what it works with, on a busy machine."""
MOST_WORKERS = 8


class ChildTimeoutError(Exception):
    """A job took longer than its deadline, and its child was killed."""


class Children:
    """At most `num_workers` child processes, started as jobs come; used from one event loop."""

    def __init__(
        self,
        target: str,
        arguments: tuple[Any, ...],
        *,
        num_workers: int | None,
        timeout_seconds: float,
        max_memory_mib: int,
    ) -> None:
        """Describe the children; none is started yet.

        Args:
            target: `module:function` that is called in each child with `arguments` and returns what does the jobs.
            arguments: they are pickled.
            num_workers: None takes half of the cores, 8 at most.
            timeout_seconds: of one job, counted from when a child has it.
            max_memory_mib: of each child.
        """
        self._setup = Setup(list(sys.path), target, pickle.dumps(arguments), max_memory_mib << 20)
        self._slots = asyncio.Semaphore(num_workers or min(MOST_WORKERS, max(1, (os.cpu_count() or 1) // 2)))
        self._timeout_seconds = timeout_seconds
        self._idle: list[ChildProcess] = []
        self._killed: list[ChildProcess] = []

    async def start(self) -> None:
        """Start one child, so that what is wrong with the setup shows before there is work.

        Raises:
            ChildDiedError: it ended before it was ready.
            Exception: what the setup raised.
        """
        if not self._idle:
            self._idle.append(await self._new())

    async def call(self, *arguments: Any) -> Any:
        """The result of one job.

        Raises:
            ChildTimeoutError: it took too long.
            ChildDiedError: its process ended.
            Exception: what the work raised.
        """
        job = pickle.dumps(arguments, pickle.HIGHEST_PROTOCOL)
        async with self._slots:
            child = await self._take()
            deadline = asyncio.timeout(self._timeout_seconds)
            is_whole = False
            try:
                async with deadline:
                    result = await child.call(job)
                is_whole = True
            except (ChildDiedError, asyncio.CancelledError):
                raise
            except BaseException:
                if deadline.expired():
                    raise ChildTimeoutError(f"took longer than {self._timeout_seconds:g} s") from None
                is_whole = True  # the error is the work's own
                raise
            finally:
                if is_whole:
                    self._idle.append(child)
                else:
                    self._kill(child)
            return result

    async def close(self) -> None:
        """End all children."""
        children, self._idle, self._killed = [*self._idle, *self._killed], [], []
        for child in children:
            await child.close()

    async def _take(self) -> ChildProcess:
        """An idle child, or a new one."""
        await self._bury()
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
            self._kill(child)
        return await self._new()

    async def _new(self) -> ChildProcess:
        try:
            async with asyncio.timeout(START_SECONDS):
                return await ChildProcess.start(self._setup)
        except TimeoutError:
            raise ChildTimeoutError(f"was not ready within {START_SECONDS:g} s of its start") from None

    def _kill(self, child: ChildProcess) -> None:
        child.kill()
        self._killed.append(child)

    async def _bury(self) -> None:
        """See the killed ones gone, as far as they are."""
        gone = [child for child in self._killed if not child.is_alive]
        for child in gone:
            self._killed.remove(child)
            await child.close()
