"""`POST /v1/messages` and `/v1/messages/count_tokens`."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from secrets import token_hex
from time import monotonic
from typing import Any

import msgspec

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.serve.context import Context
from llmkit.serve.endpoints.messages_input import read_turn
from llmkit.serve.model_defaults import given
from llmkit.serve.parsing.answers import AnswerEvent, WholeAnswer, WholeCall
from llmkit.serve.sampling import stop_strings
from llmkit.serve.schemas.anthropic import (
    AnswerBlock,
    CountRequest,
    MessageAnswer,
    MessagesRequest,
    MessageStop,
    MessageUsage,
    TextBlock,
    ThinkingBlock,
    TokenCount,
    ToolUseBlock,
)
from llmkit.serve.streams import Stream, event
from llmkit.serve.turns import Turn, draw_answers
from llmkit.types import SamplingParams


async def count_tokens(context: Context, request: CountRequest) -> TokenCount:
    """How many tokens a conversation has."""
    context.service.find_model(request.model)
    return TokenCount(input_tokens=len((await read_turn(context.service, request)).prompt_ids))


async def messages(context: Context, request: MessagesRequest) -> MessageAnswer | Stream:
    """Go on with a conversation."""
    service = context.service
    adapter = service.find_model(request.model)
    context.notes["model"] = request.model
    turn = await read_turn(service, request)
    sampling = SamplingParams(
        max_new_tokens=service.new_tokens(len(turn.prompt_ids), request.max_tokens),
        temperature=given(request.temperature, service.defaults.temperature),
        top_k=given(request.top_k, service.defaults.top_k),
        top_p=given(request.top_p, service.defaults.top_p),
        min_p=service.defaults.min_p,
        repetition_penalty=service.defaults.repetition_penalty,
        stop_token_ids=service.end_ids,
        stop=stop_strings(request.stop_sequences, "stop_sequences"),
        structure=turn.structure,
        logprob_kind="any",
    )
    generation = GenerationRequest(turn.prompt_ids, sampling, adapter=adapter, timeout_seconds=service.timeout())
    answering = _Answering(context, request, turn, generation)
    return Stream(answering.events()) if request.stream else await answering.whole()


@dataclass
class _Answering:
    """One request while it is answered."""

    context: Context
    request: MessagesRequest
    turn: Turn
    generation: GenerationRequest
    started: float = field(default_factory=monotonic)
    num_tokens: int = 0
    num_cached: int = 0
    has_called: bool = False

    @property
    def id(self) -> str:
        """The message's id."""
        return f"msg_{self.context.request_id.removeprefix('req_')}"

    async def whole(self) -> MessageAnswer:
        """Everything at once."""
        answer = WholeAnswer()
        async with aclosing(self._answers()) as answers:
            async for one in answers:
                answer.add(one, _new_id)
        blocks: list[AnswerBlock] = []
        if answer.reasoning:
            blocks.append(ThinkingBlock(thinking=answer.reasoning))
        if answer.content.strip() or not answer.calls:
            blocks.append(TextBlock(text=answer.content))
        blocks += [_call_block(call) for call in answer.calls]
        return MessageAnswer(
            id=self.id,
            model=self.request.model,
            content=blocks,
            usage=self._usage(),
            stop_reason=self._stop_reason(answer.end),
            stop_sequence=answer.end.stop if isinstance(answer.end.stop, str) else None,
        )

    async def events(self) -> AsyncGenerator[bytes]:
        """Everything as it comes."""
        blocks = _Blocks()
        has_begun = False
        async with aclosing(self._answers()) as answers:
            async for answer in answers:
                if not has_begun:  # not before the engine has taken the request
                    start = MessageAnswer(id=self.id, model=self.request.model, content=[], usage=self._usage(0))
                    yield _event({"type": "message_start", "message": start})
                    yield _event({"type": "ping"})
                    has_begun = True
                for one in blocks.add(answer):
                    yield _event(one)
                if answer.is_last:
                    for one in blocks.end():
                        yield _event(one)
                    stop = answer.delta.stop
                    delta = {
                        "stop_reason": self._stop_reason(answer.delta),
                        "stop_sequence": stop if isinstance(stop, str) else None,
                    }
                    yield _event({"type": "message_delta", "delta": delta, "usage": self._usage()})
        yield _event({"type": "message_stop"})

    async def _answers(self) -> AsyncGenerator[AnswerEvent]:
        """The pieces of the answer, counted."""
        service = self.context.service
        answers = draw_answers(self.context, self.generation, self.turn.reading)
        try:
            async for answer in answers:
                self.num_tokens += len(answer.delta.token_ids)
                self.num_cached += answer.delta.num_cached_tokens or 0
                self.has_called |= bool(answer.piece.calls)
                service.check_ended(answer.delta, self.started)
                yield answer
        finally:
            self.context.notes |= {"prompt_tokens": len(self.turn.prompt_ids), "completion_tokens": self.num_tokens}
            await answers.aclose()

    def _stop_reason(self, delta: Delta) -> MessageStop:
        if delta.stop_reason == "length":
            return "max_tokens"
        if isinstance(delta.stop, str):
            return "stop_sequence"
        return "tool_use" if self.has_called else "end_turn"

    def _usage(self, num_tokens: int | None = None) -> MessageUsage:
        return MessageUsage(
            input_tokens=len(self.turn.prompt_ids) - self.num_cached,
            output_tokens=self.num_tokens if num_tokens is None else num_tokens,
            cache_read_input_tokens=self.num_cached,
        )


class _Blocks:
    """Opens and closes content blocks around the pieces of an answer."""

    def __init__(self) -> None:
        self._index = -1
        self._open: str | None = None

    def add(self, answer: AnswerEvent) -> list[Mapping[str, Any]]:
        """Events for what a piece adds."""
        events: list[Mapping[str, Any]] = []
        piece = answer.piece
        if piece.reasoning:
            events += self._in("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            events.append(self._delta({"type": "thinking_delta", "thinking": piece.reasoning}))
        # Calls of tools begin blocks of their own; white space between them would begin another.
        if piece.content and (self._open in (None, "text", "thinking") or piece.content.strip()):
            events += self._in("text", {"type": "text", "text": ""})
            events.append(self._delta({"type": "text_delta", "text": piece.content}))
        for call in piece.calls:
            if call.name is not None:
                block = {"type": "tool_use", "id": _new_id(), "name": call.name, "input": {}}
                events += self._in(f"call {call.index}", block)
            if call.arguments:
                events.append(self._delta({"type": "input_json_delta", "partial_json": call.arguments}))
        return events

    def end(self) -> list[Mapping[str, Any]]:
        """Events that close what is open; a message without any block gets an empty one."""
        if self._index < 0:
            return [*self._in("text", {"type": "text", "text": ""}), *self._close()]
        return self._close()

    def _in(self, kind: str, block: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if self._open == kind:
            return []
        closed = self._close()
        self._index += 1
        self._open = kind
        return [*closed, {"type": "content_block_start", "index": self._index, "content_block": block}]

    def _close(self) -> list[Mapping[str, Any]]:
        if self._open is None:
            return []
        signature = [self._delta({"type": "signature_delta", "signature": ""})] if self._open == "thinking" else []
        self._open = None
        return [*signature, {"type": "content_block_stop", "index": self._index}]

    def _delta(self, delta: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def _call_block(call: WholeCall) -> AnswerBlock:
    """The call; one whose arguments are no JSON object is shown as text, as it was written."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return TextBlock(text=f"{call.name}({call.arguments})")
    return ToolUseBlock(id=call.id, name=call.name, input=arguments)


def _new_id() -> str:
    return f"toolu_{token_hex(12)}"


def _event(data: Mapping[str, Any]) -> bytes:
    return event({key: msgspec.to_builtins(value) for key, value in data.items()}, data["type"])
