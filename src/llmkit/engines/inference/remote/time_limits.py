"""One deadline for many waits."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class TimeLimit:
    """Ends the wait that is under way at a time, and every one after it.

    It has one timer, where `asyncio.timeout_at` around each wait would set and take back one for each token.
    """

    def __init__(self, end: float | None) -> None:
        """
        Args:
            end: by the clock of the running event loop; None sets no limit.
        """
        self._is_over = self._has_cancelled = False
        self._task: asyncio.Task[Any] | None = None
        self._timer = None if end is None else asyncio.get_running_loop().call_at(end, self._expire)

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of some work, in the task that asks for it.

        Raises:
            TimeoutError: it is too late; the work was cancelled, or never begun.
        """
        if self._is_over:
            work.close()
            raise TimeoutError
        task = asyncio.current_task()
        assert task is not None, "waiting is for tasks"
        num_cancels, self._task = task.cancelling(), task
        try:
            return await work
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task too; then that is what happens.
            if self._has_cancelled and task.uncancel() <= num_cancels:
                raise TimeoutError from None
            raise
        finally:
            self._task = None

    def close(self) -> None:
        """Set nothing off any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self._is_over = True
        if self._task is not None:
            self._has_cancelled = True
            self._task.cancel()
