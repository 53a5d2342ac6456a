"""One request and the servers that it goes to, one after another until it is answered."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.engines.inference.remote.contract import Dialect
from llmkit.engines.inference.remote.deadlines import Deadlines
from llmkit.engines.inference.remote.members import Member, Members
from llmkit.engines.inference.remote.waits import Waits
from llmkit.errors import EngineBusyError, EngineError, RequestError

MOST_FAILURES = 4
"""Servers, one after another, that a request may fail on; it may be the request that they fail on."""


class Asking:
    """Sends requests to servers.

    A request goes to another server when one fails before the first token, or refuses it as too busy. After the first
    token the caller has seen what another server would draw anew: the failure is the caller's to know.
    """

    def __init__(self, members: Members, dialect: Dialect, deadlines: Deadlines) -> None:
        self._members = members
        self._dialect = dialect
        self._deadlines = deadlines
        self._waits = Waits()

    def cut(self, error: EngineError) -> None:
        """Let all requests raise an error: those at a server, and those that wait for one."""
        self._waits.cut(error)
        for member in self._members.all:
            member.link.cut(error)

    async def ask(self, request: GenerationRequest, *, whole: bool) -> AsyncGenerator[Delta]:
        """The deltas of the server that answers.

        Args:
            whole: nobody looks before the end: one delta for each completion, and busy servers are asked again.

        Raises:
            RequestError: a server says that none would take it.
            EngineBusyError: all servers are too busy, and somebody is waiting for the stream.
            EngineError: no server is left, or too many failed; names them.
        """
        turn = self._waits.turn
        failures: list[EngineError] = []
        busy: dict[int, EngineBusyError] = {}
        while True:
            late = EngineError("choosing a server: it took too long")
            async with self._waits.within(self._deadlines.request_seconds, late, turn):
                member = await self._choose(request, busy, waits=whole)
            is_begun = False
            try:
                async with aclosing(self._deltas(member, request, whole=whole)) as deltas:
                    async for delta in deltas:
                        is_begun = True
                        yield delta
                return
            except RequestError:
                raise
            except EngineBusyError as error:
                busy[member.index] = error
            except EngineError as error:
                if self._waits.turn != turn:
                    raise  # it was cut, which is nobody's fault
                self._members.lose(member, error)
                failures.append(error)
                if is_begun:
                    raise EngineError(f"{error}; the first tokens are given, and cannot be drawn anew") from error
                if len(failures) >= MOST_FAILURES:
                    raise EngineError(
                        f"a request failed on {len(failures)} servers, one after another: "
                        f"{'; '.join(map(str, failures))}"
                    ) from error

    async def _choose(self, request: GenerationRequest, busy: dict[int, EngineBusyError], *, waits: bool) -> Member:
        while True:
            await self._members.some_ready(self._deadlines.recovery_seconds)
            member = self._members.choose(request, set(busy))
            if member is not None:
                return member
            error = min(busy.values(), key=lambda one: one.retry_after_seconds)
            if not waits:
                raise error
            await asyncio.sleep(error.retry_after_seconds)
            busy.clear()

    async def _deltas(self, member: Member, request: GenerationRequest, *, whole: bool) -> AsyncGenerator[Delta]:
        """One server's, all of them or an error.

        Their version is the engine's at the start, and right for every token: an update of weights begins when no
        request is under way, and none is let through before its end, so it is the version of the whole request. That
        the server itself has these weights is seen at the first delta: a process that was started since would have
        raised `num_starts` before it could answer.
        """
        left = set(range(request.num_completions))
        version = self._members.version
        with self._counted(member, request):
            deltas = self._dialect.stream(
                member.link, request, version, whole=whole, timeout_seconds=self._deadlines.request_seconds
            )
            is_first = True
            async with aclosing(deltas):
                async for delta in deltas:
                    if is_first and not self._members.is_current(member):
                        raise EngineError(f"{member.link.server.url}: drawing: it was started again meanwhile")
                    is_first = False
                    if delta.stop_reason is not None:
                        left.discard(delta.index)
                    yield delta
        if left:
            raise EngineError(f"{member.link.server.url}: drawing: the answer broke off before its end")

    @contextmanager
    def _counted(self, member: Member, request: GenerationRequest) -> Iterator[None]:
        member.num_running += request.num_completions
        try:
            yield
        finally:
            member.num_running -= request.num_completions
