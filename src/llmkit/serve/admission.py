"""Who may come in: a bounded number of requests, of each key and of all, and none while the server drains."""

import asyncio
from collections import Counter
from time import monotonic

from llmkit.config.serving import LimitsConfig
from llmkit.serve.api_errors import ApiError

SMOOTHING = 0.1
"""Weight of the newest request in the mean of their seconds."""
MAX_RETRY_SECONDS = 60.0


class Admission:
    """Counts the requests that are in the server."""

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._by_key: Counter[str | None] = Counter()
        self._mean_seconds = 1.0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self.is_closed = False

    @property
    def num_requests(self) -> int:
        """Requests that are in the server, running and waiting."""
        return self._by_key.total()

    def enter(self, key_id: str | None) -> "Place":
        """Take a place.

        Raises:
            ApiError: 503 when the server is full or drains, 429 when this key has too many requests in it.
        """
        self._check(key_id)
        self._by_key[key_id] += 1
        self._is_idle.clear()
        return Place(self, key_id)

    def leave(self, key_id: str | None, seconds: float) -> None:
        """Give a place back that was held for some seconds."""
        self._mean_seconds += SMOOTHING * (seconds - self._mean_seconds)
        self._by_key[key_id] -= 1
        if not self._by_key[key_id]:
            del self._by_key[key_id]
        if not self._by_key:
            self._is_idle.set()

    async def wait_idle(self) -> None:
        """Wait until no request is in the server."""
        await self._is_idle.wait()

    def _check(self, key_id: str | None) -> None:
        if self.is_closed:
            raise ApiError(503, "the server is shutting down", code="shutting_down", retry_after_seconds=self._retry())
        if self.num_requests >= self._limits.max_requests:
            raise ApiError(
                503,
                f"the server is full: it has {self.num_requests} requests, and limits.max_requests allows no more",
                code="overloaded",
                retry_after_seconds=self._retry(),
            )
        most = self._limits.max_requests_per_key
        if most is not None and self._by_key[key_id] >= most:
            raise ApiError(
                429,
                f"this API key has {self._by_key[key_id]} requests in the server, and limits.max_requests_per_key "
                "allows no more at a time",
                code="rate_limit_exceeded",
                retry_after_seconds=self._retry(),
            )

    def _retry(self) -> float:
        """Seconds after which a place should be free: requests leave one after another, each after the mean time."""
        return min(MAX_RETRY_SECONDS, max(1.0, self._mean_seconds))


class Place:
    """One request's place in the server."""

    def __init__(self, admission: Admission, key_id: str | None) -> None:
        self._admission = admission
        self._key_id = key_id
        self._start = monotonic()
        self._is_held = True

    def leave(self) -> None:
        """Give it back; again changes nothing."""
        if self._is_held:
            self._is_held = False
            self._admission.leave(self._key_id, monotonic() - self._start)
