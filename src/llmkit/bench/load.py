"""Requests to a running server, at a rate or so many at a time, and when each of their tokens came."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llmkit.bench.lengths import Ask
from llmkit.errors import BenchError

if TYPE_CHECKING:
    from aiohttp import ClientSession

READ_SECONDS = 600.0
FIRST_SECONDS = 20.0
"""For a server to name its models."""


@dataclass(frozen=True)
class Load:
    """What to ask for.

    Attributes:
        url: of the server, without a path.
        model: the name that requests use.
        api_key: None where none is needed.
        asks: each request's prompt, and the tokens of its completion; ends of text are ignored.
        concurrency: requests in flight at a time; None sends them at their rate, however many are in flight.
        rate: requests a second, with exponentially distributed gaps (a Poisson process); None sends them at once.
        seed: of the gaps.
        stream: whether answers come as they are drawn, or whole.
    """

    url: str
    model: str
    api_key: str | None
    asks: Sequence[Ask]
    concurrency: int | None
    rate: float | None
    seed: int = 0
    stream: bool = True


@dataclass
class Sent:
    """One request.

    Attributes:
        start: when it was sent, in seconds of the same clock as the others.
        times: when each of its chunks with tokens came.
        num_tokens: what the server says that it drew.
        error: what went wrong.
    """

    start: float
    times: list[float] = field(default_factory=list[float])
    num_tokens: int = 0
    error: str | None = None

    @property
    def seconds(self) -> float:
        """From sending it to its last token."""
        return self.times[-1] - self.start

    @property
    def first_seconds(self) -> float:
        """From sending it to its first token."""
        return self.times[0] - self.start

    @property
    def between_seconds(self) -> float | None:
        """Between tokens, over the whole completion, since a chunk may bring several; None of a single chunk."""
        return (self.times[-1] - self.times[0]) / (self.num_tokens - 1) if len(self.times) > 1 else None


async def send_all(load: Load) -> tuple[list[Sent], float]:
    """Send every request.

    Returns: the requests, and the seconds from the first to the last token of all.
    """
    from aiohttp import ClientSession, ClientTimeout, TCPConnector

    headers = {} if load.api_key is None else {"authorization": f"Bearer {load.api_key}"}
    gate = asyncio.Semaphore(load.concurrency or max(1, len(load.asks)))
    random = Random(load.seed)
    timeout = ClientTimeout(total=None, sock_read=READ_SECONDS)
    async with ClientSession(headers=headers, connector=TCPConnector(limit=0), timeout=timeout) as session:

        async def one(ask: Ask, delay: float) -> Sent:
            await asyncio.sleep(delay)
            async with gate:
                return await send(session, load, ask)

        delays, delay = [], 0.0
        for _ in load.asks:
            delays.append(delay)
            delay += random.expovariate(load.rate) if load.rate else 0.0
        start = perf_counter()
        sent = await asyncio.gather(*map(one, load.asks, delays))
        return list(sent), perf_counter() - start


async def send(session: "ClientSession", load: Load, ask: Ask) -> Sent:
    """One request; what goes wrong is kept with it."""
    from aiohttp import ClientError

    body = {
        "model": load.model,
        "prompt": list(ask.prompt),
        "max_tokens": ask.output_tokens,
        "stream": load.stream,
        **({"stream_options": {"include_usage": True}} if load.stream else {}),
        "ignore_eos": True,
        "temperature": 1.0,
    }
    sent = Sent(perf_counter())
    try:
        async with session.post(f"{load.url}/v1/completions", json=body) as response:
            if response.status != 200:
                sent.error = f"{response.status}: {_message(await response.text())}"
                return sent
            if load.stream:
                async for line in response.content:
                    _read(line, sent)
            else:
                _take(json.loads(await response.read()), sent)
    except (ClientError, TimeoutError, OSError) as error:
        sent.error = f"{type(error).__name__}: {error}"
    if sent.error is None and not sent.times:
        sent.error = "the answer had no tokens"
    return sent


async def first_model(url: str, api_key: str | None) -> str:
    """The first model that a server names.

    Raises:
        BenchError: there is no server, or it refuses.
    """
    from aiohttp import ClientError, ClientSession, ClientTimeout

    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    patience = ClientTimeout(total=FIRST_SECONDS)
    try:
        async with (
            ClientSession(headers=headers, timeout=patience) as session,
            session.get(f"{url}/v1/models") as response,
        ):
            text = await response.text()
    except TimeoutError:
        raise BenchError(f"{url}: takes connections, but /v1/models was not answered in {FIRST_SECONDS:g} s") from None
    except (ClientError, OSError) as error:
        raise BenchError(f"{url}: no server answers there: {error}") from error
    if response.status != 200:
        raise BenchError(f"{url}/v1/models: {response.status}: {_message(text)}")
    try:
        return str(json.loads(text)["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        raise BenchError(f"{url}/v1/models: no list of models as OpenAI's API has it: {text[:100]!r}") from None


def _read(line: bytes, sent: Sent) -> None:
    """Take one line of a stream."""
    if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
        return
    _take(json.loads(line[6:]), sent)


def _take(document: Mapping[str, Any], sent: Sent) -> None:
    """Take an answer, or a part of one."""
    if "error" in document:
        sent.error = str(document["error"].get("message"))
        return
    if document.get("choices"):
        sent.times.append(perf_counter())
    if usage := document.get("usage"):
        sent.num_tokens = usage["completion_tokens"]


def _message(text: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["error"]["message"])
    return text[:200]
