"""What stands between an engine in this process and the servers that draw its completions.

`RemoteEngine` (an `InferenceEngine`) asks the servers of a `Fleet`, in the words of a `Dialect`; a `WeightSync` brings
them the policy's weights.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llmkit.engines.inference.contract import Delta, EngineStats, GenerationRequest, InferenceEngine, PauseMode


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is and how to ask it.

    Attributes:
        index: its place in the fleet, from 0; a server that is started again keeps it, and its address.
        url: `http://host:port`, without a path.
        model: the name that requests use for the model.
        api_key: sent as a bearer token; None for none.
    """

    index: int
    url: str
    model: str
    api_key: str | None = None


class Fleet(Protocol):
    """Servers of one kind with one model, started by llmkit or by somebody else. Safe to use from several threads."""

    @property
    def servers(self) -> Sequence[Server]:
        """All of them, also those that do not answer now."""
        ...

    def num_starts(self, index: int) -> int:
        """How often a server has been started, 1 at first: one that has grown no longer has the weights it was sent."""
        ...

    def failure(self, index: int) -> str | None:
        """Why a server is gone for good, with the end of its log; None while it runs or is being started again."""
        ...

    def close(self) -> None:
        """Stop the servers that llmkit started. Closing twice is allowed."""
        ...


class Link(Protocol):
    """A server as a dialect speaks to it: HTTP with a deadline on everything.

    Raises:
        EngineError: from all methods, when the server cannot be reached, breaks off, takes longer than its deadline, or
            answers with an error; names phase and server.
        RequestError: from all methods, when the server refuses the request as such (400, 404, 413, 422).
        EngineBusyError: from all methods, when it is too busy now (429, 503).
    """

    @property
    def server(self) -> Server:
        """Whom it leads to."""
        ...

    @property
    def num_streams(self) -> int:
        """Streams of events that are open or asked for: with many, each may come in larger pieces."""
        ...

    async def call(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        phase: str,
        method: str = "POST",
        params: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        kind: Any = Any,
    ) -> Any:
        """The JSON of an answer, its text where it is not JSON, None where it is empty.

        Args:
            phase: what is being done, for error messages: `pausing`, `sending weights`.
            timeout_seconds: for the whole call; None takes the link's own.
            kind: type of the JSON, such as a msgspec struct with the fields that are wanted; other JSON is an error.
        """
        ...

    def events(self, path: str, body: Mapping[str, Any], *, phase: str, kind: Any = Any) -> AsyncGenerator[Any]:
        """The JSON of each server-sent event, until `[DONE]` or the end; an `{"error": ...}` event raises."""
        ...


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself.

    Attributes:
        context_length: most tokens of prompt and completion together; None where it does not tell.
        version: of the program, as text; empty where it does not tell.
        adapters: names that it serves besides the model's own.
    """

    context_length: int | None
    version: str = ""
    adapters: tuple[str, ...] = ()


class Dialect(Protocol):
    """How servers of one kind are spoken to. It has no state of its own: one serves all links."""

    @property
    def name(self) -> str:
        """For messages: `vLLM`."""
        ...

    def check(self, request: GenerationRequest) -> None:
        """Refuse what the server would refuse, ignore, or do in another way than `SamplingParams` says.

        Raises:
            RequestError: names the parameter.
        """
        ...

    async def facts(self, link: Link) -> ServerFacts:
        """What it serves; also shows that it is ready. Cheap: health checks call it."""
        ...

    def stream(
        self, link: Link, request: GenerationRequest, version: int, *, whole: bool, timeout_seconds: float
    ) -> AsyncGenerator[Delta]:
        """Deltas of all completions; stop strings are the engine's own business.

        `text` stays empty, except from a server that gives text in the place of token ids.

        Args:
            version: of the weights, where the server does not stamp its tokens itself.
            whole: one delta for each completion is enough, when it has ended.
            timeout_seconds: for the whole request, where it is not streamed.
        """
        ...

    async def pause(self, link: Link, mode: PauseMode) -> None:
        """See `ServingEngine.pause`. Raises RequestError where the server has no such mode."""
        ...

    async def resume(self, link: Link) -> None:
        """Go on after `pause`."""
        ...

    async def drop_caches(self, link: Link) -> None:
        """Forget all cached prefixes, and be sure of it."""
        ...

    async def load_adapter(self, link: Link, name: str, path: Path, *, replace: bool) -> None:
        """Let requests ask for the adapter in a directory by a name.

        Args:
            replace: put it in the place of one with this name, if there is one.
        """
        ...

    async def unload_adapter(self, link: Link, name: str) -> None:
        """Forget an adapter."""
        ...

    async def stats(self, link: Link) -> EngineStats:
        """How the server is doing."""
        ...


class WeightSync(Protocol):
    """Brings the policy's weights to servers, as a transaction: all of them draw with the new ones, or it raises."""

    @property
    def adapter(self) -> str | None:
        """Name of the adapter that is the policy on the servers: requests that name none ask for it. None before the
        first update, and where the model itself gets the weights."""
        ...

    async def update(self, links: Sequence[Link], version: int) -> None:
        """Begin, put, commit: afterwards every token that is drawn carries `version`, and no cache is older.

        The engine has paused the servers and lets no request through meanwhile.

        Raises:
            EngineError: names phase and server; after it the servers must not be asked until an update succeeds.
        """
        ...

    async def verify(self, links: Sequence[Link], version: int) -> None:
        """Compare what servers say of a probe prompt with what the policy says, where it is time for that.

        The engine has resumed the servers after `update`, and still lets no request through.

        Raises:
            EngineError: names the server, the token and both numbers; as after a failed `update`, the servers must not
                be asked.
        """
        ...

    async def restore(self, link: Link) -> None:
        """Bring a server that was started again to the weights of the last update; nothing to do before the first.

        Raises:
            EngineError: it failed, or the policy has changed since and its last weights were not kept; the next update
                brings the server back.
        """
        ...

    def close(self) -> None:
        """Free what was kept for servers: files, shared memory, process groups. Closing twice is allowed."""
        ...


@dataclass(frozen=True)
class SharedServers:
    """Servers that another process of a run has started, as this one is to ask them.

    An engine's `build` takes these, when it is given them, in the place of a fleet and a sync of its own.

    Attributes:
        fleet: what the other process knows of its servers; closing it stops none.
        sync: sends nothing: the other process does. A server that was started again is not asked until it did.
    """

    fleet: Fleet
    sync: WeightSync


@runtime_checkable
class FleetEngine(InferenceEngine, Protocol):
    """An engine that asks servers, which other processes can ask too."""

    @property
    def fleet(self) -> Fleet:
        """The servers."""
        ...

    @property
    def policy_adapter(self) -> str | None:
        """Name of the adapter that is the policy on the servers; None where the model itself is."""
        ...

    def current_starts(self) -> Sequence[int | None]:
        """For each server which of its starts (see `Fleet.num_starts`) has the present weights; None for one that has
        none of them. May be asked from any thread."""
        ...
