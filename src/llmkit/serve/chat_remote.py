"""A model behind a URL that speaks OpenAI's chat API."""

import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from llmkit.errors import EngineError
from llmkit.serve.chat import Settings

READ_SECONDS = 600.0


class RemoteModel:
    """Asks a server."""

    def __init__(self, url: str, model: str | None, api_key: str | None) -> None:
        """Take the server's address, the model's name there (None: the first one), and a key."""
        self._url = url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._session: ClientSession | None = None

    async def open(self) -> str:
        """Connect, and ask for a model if none was named.

        Raises:
            EngineError: no server answers, or it refuses.
        """
        timeout = ClientTimeout(total=None, sock_read=READ_SECONDS)
        self._session = ClientSession(headers=self._headers, timeout=timeout)
        try:
            async with self._session.get(f"{self._url}/v1/models") as response:
                text = await response.text()
        except (ClientError, OSError) as error:
            await self.close()
            raise EngineError(f"{self._url}: no server answers there: {error}") from error
        if response.status != 200:
            await self.close()
            raise EngineError(f"{self._url}/v1/models: {response.status}: {message_of(text)}")
        self._model = self._model or str(json.loads(text)["data"][0]["id"])
        return f"{self._model} on {self._url}"

    async def answer(self, messages: list[dict[str, str]], settings: Settings) -> AsyncGenerator[tuple[str, bool]]:
        """See `Said`.

        Raises:
            EngineError: the server refuses, or goes away.
        """
        assert self._session is not None, "`open` was called"
        body: dict[str, Any] = {"model": self._model, "messages": messages, "stream": True}
        wanted = {"temperature": settings.temperature, "max_tokens": settings.max_tokens, "seed": settings.seed}
        body |= {name: value for name, value in wanted.items() if value is not None}
        is_whole = False
        try:
            async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
                if response.status != 200:
                    raise EngineError(f"{response.status}: {message_of(await response.text())}")
                async for line in response.content:
                    if line.startswith(b"data: [DONE]"):
                        is_whole = True
                    elif line.startswith(b"data: "):
                        for piece in _pieces(json.loads(line[6:])):
                            yield piece
        except (ClientError, TimeoutError, OSError) as error:
            raise EngineError(f"{self._url}: the connection broke off: {error}") from error
        if not is_whole:
            raise EngineError(f"{self._url}: the answer broke off")

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()


def message_of(text: str) -> str:
    """What an error's body says."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["error"]["message"])
    return text[:200]


def _pieces(chunk: dict[str, Any]) -> list[tuple[str, bool]]:
    if "error" in chunk:
        raise EngineError(str(chunk["error"].get("message")))
    deltas = [choice["delta"] for choice in chunk.get("choices") or ()]
    found = [(delta.get("reasoning_content") or delta.get("reasoning"), True) for delta in deltas]
    found += [(delta.get("content"), False) for delta in deltas]
    return [(text, is_thought) for text, is_thought in found if text]
