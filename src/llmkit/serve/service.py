"""The engine with everything that the endpoints need around it; it knows nothing of HTTP."""

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from time import monotonic, time
from typing import Any, TypeVar

from llmkit.config.serving import ServeRun
from llmkit.data.chat.parsing.tools import find_parser
from llmkit.data.codec import TextCodec
from llmkit.engines.inference.contract import Delta, GenerationRequest, ServingEngine
from llmkit.engines.inference.merging import merge
from llmkit.errors import ModelError
from llmkit.serve.admission import Admission
from llmkit.serve.api_errors import ApiError, bad_request
from llmkit.serve.metrics import Metrics
from llmkit.serve.model_defaults import ModelDefaults
from llmkit.serve.template_variables import template_variables
from llmkit.serve.token_text import TokenTexts
from llmkit.types import Message

T = TypeVar("T")
LONG_TEXT = 20_000
"""Characters from which text is made into tokens in a thread, so that other requests go on meanwhile."""


@dataclass
class Clock:
    """When the tokens of a request came."""

    start: float
    first: float | None = None
    last: float | None = None


class Service:
    """One served model.

    Attributes:
        engine: what draws the completions.
        codec: tokenizer and chat template.
        run: the settings.
        names: what requests call the model; the first is what answers say.
        tool_parser: how the model writes calls; None when nobody knows.
        thinks: whether the model's thoughts come first.
        defaults: how to draw where a request does not say.
        admission: the requests that are in the server.
        metrics: what is counted.
        created: when the server began, in seconds since 1970.
        is_stopping: whether load balancers should look elsewhere.
    """

    def __init__(
        self, engine: ServingEngine, codec: TextCodec, run: ServeRun, defaults: ModelDefaults | None = None
    ) -> None:
        self.engine = engine
        self.defaults = defaults or ModelDefaults()
        self.codec = codec
        self.run = run
        self.limits = run.limits
        self.names = run.server.served_names or (default_name(run.model.path),)
        templates = codec.template.sources
        self.tool_parser = find_parser(run.tool_parser, templates)
        self.thinks = run.reasoning_parser == "think" or (
            run.reasoning_parser == "auto" and any("</think>" in template for template in templates)
        )
        self.admission = Admission(run.limits)
        self.metrics = Metrics(engine, self.names[0])
        self.token_texts = TokenTexts(codec.tokenizer)
        self.created = int(time())
        self.is_stopping = False
        self._encoders = ThreadPoolExecutor(1, thread_name_prefix="encode")

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: the chat template's, the tokenizer's, and those that the model names."""
        try:
            known = self.codec.stop_token_ids
        except ModelError:
            known = ()
        return tuple(dict.fromkeys((*known, *self.defaults.end_ids)))

    @property
    def max_prompt_tokens(self) -> int | None:
        """Most tokens of a prompt, by the limits and by the model."""
        context = self.engine.context_length
        known = [limit for limit in (self.limits.max_prompt_tokens, None if context is None else context - 1) if limit]
        return min(known, default=None)

    def find_model(self, name: str) -> str | None:
        """The adapter that a request's `model` asks for; None for the model itself.

        Raises:
            ApiError: 404, there is neither.
        """
        if name in self.names:
            return None
        if name in self.engine.adapters:
            return name
        known = ", ".join((*self.names, *self.engine.adapters))
        raise ApiError(
            404, f"The model `{name}` does not exist; there are: {known}", param="model", code="model_not_found"
        )

    async def chat_ids(
        self,
        messages: Sequence[Message],
        tools: str | None = None,
        *,
        generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """A conversation as token ids.

        Args:
            messages: the conversation.
            tools: JSON text of the tool schemas.
            generation_prompt: end with what makes the model answer.
            variables: what else the chat template reads, over that of the settings.
        Raises:
            ApiError: 400, a variable is not the request's to give.
            DataError: the chat template refuses it.
            ModelError: there is no chat template.
        """
        size = sum(len(message.text) for message in messages) + len(tools or "")
        wanted = TextCodec.prompt_ids if generation_prompt else TextCodec.conversation_ids
        text = template_variables(self.run.chat_template_kwargs, variables)
        return await self._encoding(size, lambda codec: wanted(codec, messages, None, tools, text))

    async def text_ids(self, text: str, *, special_tokens: bool = True, is_plain: bool = False) -> list[int]:
        """Text as token ids.

        Args:
            text: what to encode.
            special_tokens: add those that the tokenizer puts around a text.
            is_plain: special tokens that the text spells become ordinary ones.
        """
        return await self._encoding(
            len(text),
            lambda codec: list(
                codec.tokenizer(text, add_special_tokens=special_tokens, split_special_tokens=is_plain)["input_ids"]  # type: ignore[arg-type]
            ),
        )

    def check_prompt(self, prompt_ids: Sequence[int], param: str = "messages") -> None:
        """Refuse a prompt that is empty, too long, or of no tokens of this model.

        Raises:
            ApiError: 400.
        """
        if not prompt_ids:
            raise bad_request("the prompt is empty; give at least one token", param)
        size, most = len(prompt_ids), self.max_prompt_tokens
        if most is not None and size > most:
            raise bad_request(
                f"the prompt has {size} tokens, and {most} is the most that this server takes; shorten it",
                param,
                "context_length_exceeded",
            )
        if max(prompt_ids) >= self.codec.num_ids or min(prompt_ids) < 0:
            wrong = next(token for token in prompt_ids if not 0 <= token < self.codec.num_ids)
            raise bad_request(f"{wrong} is no token of this model; its ids are below {self.codec.num_ids}", param)

    def new_tokens(self, prompt_size: int, wanted: int | None, param: str = "max_tokens") -> int:
        """How many tokens a completion may have; unset is what the model's settings, the context and the limits leave.

        Raises:
            ApiError: 400, it is more than that.
        """
        context, most = self.engine.context_length, self.limits.max_new_tokens
        room = most if context is None else max(1, context - prompt_size)
        if wanted is None:
            return min(room, most, self.defaults.max_new_tokens or most)
        if wanted > most:
            raise bad_request(f"{param}={wanted} is more than the {most} that this server allows", param)
        if context is not None and prompt_size + wanted > context:
            raise bad_request(
                f"This model's maximum context length is {context} tokens. However, you requested "
                f"{prompt_size + wanted} tokens ({prompt_size} in the prompt, {wanted} in the completion). Please "
                f"reduce the length of the prompt or {param}.",
                param,
                "context_length_exceeded",
            )
        return wanted

    def timeout(self, wanted: float | None = None) -> float:
        """Seconds that a request may take."""
        return min(self.limits.max_seconds, wanted or self.limits.max_seconds)

    async def draw(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[tuple[int, Delta]]:
        """Deltas of some generation requests, each with its request's place; what comes is timed and counted."""
        clock = Clock(monotonic())
        numbered = [_numbered(number, self.engine.stream(request)) for number, request in enumerate(requests)]
        stream = merge(numbered)
        last: dict[tuple[int, int], float] = {}
        try:
            async for number, delta in stream:
                if delta.token_ids:
                    self._time(clock, last, (number, delta.index), len(delta.token_ids))
                yield number, delta
        finally:
            await stream.aclose()
        self.metrics.request_seconds.observe(monotonic() - clock.start)

    def check_ended(self, delta: Delta, started: float) -> None:
        """Refuse an answer that something other than the model ended.

        Raises:
            ApiError: 504 when its time was over, 503 when the server ended it.
        """
        if delta.stop_reason != "cancelled":
            return
        if monotonic() - started >= self.timeout() - 0.01:
            raise ApiError(504, f"the request took longer than {self.timeout():g} seconds", code="timeout")
        raise ApiError(
            503, "the server ended this request before its answer was whole", code="cancelled", retry_after_seconds=1
        )

    async def close(self) -> None:
        """End what runs and free the engine."""
        await self.engine.close()
        self._encoders.shutdown(wait=False, cancel_futures=True)

    def _time(self, clock: Clock, last: dict[tuple[int, int], float], completion: tuple[int, int], count: int) -> None:
        now = monotonic()
        if clock.first is None:
            clock.first = now
            self.metrics.time_to_first_token.observe(now - clock.start)
        if completion in last:
            self.metrics.inter_token_latency.observe((now - last[completion]) / count)
        last[completion] = now

    async def _encoding(self, size: int, encode: Callable[[TextCodec], T]) -> T:
        """Encode here, or, when it takes long, in a thread with a tokenizer of its own: it cannot be shared."""
        if size < LONG_TEXT:
            return encode(self.codec)
        return await asyncio.get_running_loop().run_in_executor(self._encoders, lambda: encode(self._other_codec))

    @cached_property
    def _other_codec(self) -> TextCodec:
        return copy.deepcopy(self.codec)


def default_name(path: str) -> str:
    """What a model is called when nobody says: its path without the directories before it."""
    return path.rstrip("/").rpartition("/")[2] if path.startswith(("/", ".", "~")) else path


async def _numbered(number: int, stream: AsyncGenerator[Delta]) -> AsyncGenerator[tuple[int, Delta]]:
    try:
        async for delta in stream:
            yield number, delta
    finally:
        await stream.aclose()
