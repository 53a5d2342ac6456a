"""Scripted: answers with given token ids or texts, for tests and dry runs."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from llmkit.config.section import Section
from llmkit.engines.inference.contract import (
    Delta,
    EngineContext,
    EngineStats,
    GenerationRequest,
    PauseMode,
    TokenScores,
)
from llmkit.engines.inference.merging import collect, merge
from llmkit.errors import EngineError, RequestError
from llmkit.types import Completion, SamplingParams, StopReason, Structure

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Config(Section):
    """What it says; without a script it repeats the prompt."""

    script: tuple[tuple[int, ...], ...] = ()
    """Completions as token ids, given in turn, the first again after the last; a request's seed is a place among them.
    Empty repeats the prompt."""
    texts: tuple[str, ...] = ()
    """Completions as text, behind those of `script`; they need a tokenizer."""
    seconds_per_token: float = Field(0.0, ge=0)
    """Time that each token takes."""
    context_length: int | None = Field(default=None, ge=2)
    """Most tokens of prompt and completion together; unset has no limit."""


def build(config: Config, context: EngineContext) -> "EchoEngine":
    """Make the engine; it needs no model.

    Raises:
        EngineError: there are texts, and no tokenizer to make tokens of them.
    """
    return EchoEngine(config, context.tokenizer)


class EchoEngine:
    """Draws nothing: every token has log-probability 0, and whatever steers a draw changes nothing."""

    def __init__(self, config: Config, tokenizer: "PreTrainedTokenizerBase | None" = None) -> None:
        self._tokenizer = tokenizer
        self._script = [list(ids) for ids in config.script] + self._encode(config.texts)
        self._seconds_per_token = config.seconds_per_token
        self._context_length = config.context_length
        self._version = 0
        self._num_requests = 0
        self._aborts = 0
        self._running: set[object] = set()
        self._num_waiting = 0
        self._num_prompt_tokens = self._num_generated_tokens = 0
        self._adapters: list[str] = []
        self._open_gate, self._go_on = asyncio.Event(), asyncio.Event()
        self._open_gate.set()
        self._go_on.set()
        self._closed = False

    @property
    def version(self) -> int:
        """Version of the weights that it pretends to have."""
        return self._version

    @property
    def context_length(self) -> int | None:
        """As configured."""
        return self._context_length

    @property
    def adapters(self) -> Sequence[str]:
        """Those that were loaded; none of them changes anything."""
        return tuple(self._adapters)

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        """The next scripted completion, or the prompt."""
        return await collect(self.stream(GenerationRequest(prompt_ids, sampling)))

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        """Scripted completions, token by token."""
        self._check(request)
        plans = [self._plan(request, index) for index in range(request.num_completions)]
        self._num_prompt_tokens += len(request.prompt_ids)
        parts = [self._complete(request, index, plan) for index, plan in enumerate(plans)]
        async with aclosing(merge(parts)) as deltas:
            async for delta in deltas:
                yield delta

    async def pause(self, mode: PauseMode = "abort") -> None:
        """Hold new requests; end running ones, let them end, or hold them too."""
        self._open_gate.clear()
        if mode == "abort":
            self._aborts += 1
            self._go_on.set()
        elif mode == "keep":
            self._go_on.clear()
        while mode == "wait" and self._running:
            await asyncio.sleep(0.001)

    async def resume(self) -> None:
        """Go on after `pause`."""
        self._open_gate.set()
        self._go_on.set()

    async def load_weights(self, version: int) -> None:
        """Count the version."""
        self._version = version

    async def close(self) -> None:
        """End running requests; refuse new ones."""
        self._closed = True
        await self.resume()

    def stats(self) -> EngineStats:
        """What runs and what was said."""
        return EngineStats(
            num_running=len(self._running),
            num_waiting=self._num_waiting,
            num_prompt_tokens=self._num_prompt_tokens,
            num_generated_tokens=self._num_generated_tokens,
        )

    async def load_adapter(self, name: str, path: Path) -> None:
        """Take the name; the directory must look like an adapter."""
        if name in self._adapters:
            raise RequestError(f"there is an adapter named '{name}'; unload it first")
        if not (path / "adapter_config.json").is_file():
            raise RequestError(f"{path}: no adapter_config.json there; give the directory of an adapter")
        self._adapters.append(name)

    async def unload_adapter(self, name: str) -> None:
        """Forget the name."""
        if name not in self._adapters:
            raise RequestError(f"no adapter named '{name}'; loaded: {', '.join(self._adapters) or 'none'}")
        self._adapters.remove(name)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if texts and self._tokenizer is None:
            raise EngineError("engine.texts needs a tokenizer, and there is none; give engine.script, in token ids")
        return [list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]  # type: ignore[misc]

    def _check(self, request: GenerationRequest) -> None:
        if self._closed:
            raise EngineError("the engine is closed")
        if not request.prompt_ids:
            raise RequestError("the prompt is empty; give at least one token")
        if request.adapter is not None and request.adapter not in self._adapters:
            raise RequestError(f"no adapter named '{request.adapter}'; loaded: {', '.join(self._adapters) or 'none'}")
        wanted = len(request.prompt_ids) + request.sampling.max_new_tokens
        if self._context_length is not None and wanted > self._context_length:
            raise RequestError(
                f"a prompt of {len(request.prompt_ids)} tokens and max_new_tokens={request.sampling.max_new_tokens} do "
                f"not fit engine.context_length={self._context_length}; shorten the prompt or raise it"
            )

    def _plan(self, request: GenerationRequest, index: int) -> list[int]:
        """The next of the script; a seed is a place in it, so that the same one repeats the draw."""
        script = self._script or [list(request.prompt_ids)]
        seed = request.sampling.seed
        plan = script[(self._num_requests if seed is None else seed + index) % len(script)]
        self._num_requests += seed is None
        if request.sampling.structure is not None and self._tokenizer is not None:
            check_structure(str(self._tokenizer.decode(plan, skip_special_tokens=True)), request.sampling.structure)
        return plan[: request.sampling.max_new_tokens]

    async def _complete(self, request: GenerationRequest, index: int, plan: Sequence[int]) -> AsyncGenerator[Delta]:
        from llmkit.engines.inference.text_stream import open_text_stream

        sampling = request.sampling
        text = open_text_stream(self._tokenizer, sampling)
        # A place of its own in the loop's clock; None never comes.
        end = None if request.timeout_seconds is None else asyncio.get_running_loop().time() + request.timeout_seconds
        if not await self._wait(self._open_gate, end):
            yield self._first(request, index, Delta(index, stop_reason="cancelled"))
            return
        aborts = self._aborts
        running = object()
        self._running.add(running)
        try:
            reason: StopReason = "length" if len(plan) == sampling.max_new_tokens else "stop"
            for number, token in enumerate(plan):
                await asyncio.sleep(self._seconds_per_token)
                if not await self._wait(self._go_on, end) or self._closed or self._aborts > aborts:
                    reason = "cancelled"
                    break
                self._num_generated_tokens += 1
                piece = text.push([token])
                stop = piece.stop
                if stop is None and token in sampling.stop_token_ids and number >= sampling.min_new_tokens:
                    stop = token
                scores = [TokenScores(0.0, ((token, 0.0),) if sampling.num_top_logprobs else ())]
                delta = Delta(index, [token], scores, [self._version], piece.text)
                if stop is not None:
                    rest = text.finish() if isinstance(stop, int) else ""
                    delta = Delta(index, [token], scores, [self._version], piece.text + rest, "stop", stop)
                yield self._first(request, index, delta) if number == 0 else delta
                if stop is not None:
                    return
            last = Delta(index, text=text.finish(), stop_reason=reason)
            yield last if plan else self._first(request, index, last)
        finally:
            self._running.discard(running)

    async def _wait(self, gate: asyncio.Event, end: float | None) -> bool:
        """Whether the gate opened before the request's time was over."""
        now = asyncio.get_running_loop().time()
        if end is not None and now >= end:
            return False
        if gate.is_set():
            return True
        self._num_waiting += 1
        try:
            async with asyncio.timeout(None if end is None else end - now):
                await gate.wait()
        except TimeoutError:
            return False
        finally:
            self._num_waiting -= 1
        return True

    @staticmethod
    def _first(request: GenerationRequest, index: int, delta: Delta) -> Delta:
        """The delta, with what comes once in a request."""
        if index:
            return delta
        scores = None
        if request.sampling.prompt_logprobs:
            scores = [TokenScores(None if place == 0 else 0.0) for place in range(len(request.prompt_ids))]
        return Delta(
            index, delta.token_ids, delta.scores, delta.versions, delta.text, delta.stop_reason, delta.stop, scores, 0
        )  # fmt: skip


def check_structure(text: str, structure: Structure) -> None:
    """Refuse a structure that the script does not have: it cannot be steered.

    Of a JSON schema, only that the text is JSON is checked.

    Raises:
        RequestError: the text is something else, or the structure is a grammar.
    """
    match structure.kind:
        case "json" | "json_schema":
            fits = _is_json(text)
        case "regex":
            try:
                fits = re.fullmatch(structure.text, text) is not None
            except re.error as error:
                raise RequestError(f"the regular expression {structure.text!r} is not valid: {error}") from None
        case "choice":
            fits = text in json.loads(structure.text)
        case "grammar":
            raise RequestError("the engine 'echo' knows no grammars; use another engine")
    if not fits:
        raise RequestError(f"the engine 'echo' is scripted, and its next answer does not fit the {structure.kind}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
