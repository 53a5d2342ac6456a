"""`POST /v1/chat/completions`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, time
from typing import Any

from msgspec import UNSET

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.serve.api_errors import bad_request
from llmkit.serve.context import Context
from llmkit.serve.conversation import read_messages
from llmkit.serve.endpoints.logprobs import chat_logprobs, prompt_logprobs
from llmkit.serve.parsing.answers import AnswerEvent, WholeAnswer, new_call_id
from llmkit.serve.sampling import openai_sampling
from llmkit.serve.schemas.chat import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    ChoiceLogprobs,
    ChunkChoice,
    FinishReason,
    FunctionCall,
    FunctionDelta,
    MessageDelta,
    NamedTool,
    ToolCall,
    ToolCallDelta,
)
from llmkit.serve.schemas.common import PromptTokensDetails, Usage
from llmkit.serve.streams import DONE, Stream, event
from llmkit.serve.turns import Turn, draw_answers, make_turn


async def chat_completions(context: Context, request: ChatRequest) -> ChatCompletion | Stream:
    """Go on with a conversation."""
    service = context.service
    adapter = service.find_model(request.model)
    context.notes["model"] = request.model
    named = request.tool_choice.function.name if isinstance(request.tool_choice, NamedTool) else None
    turn = await make_turn(
        service,
        read_messages(request.messages),
        tools=request.tools,
        choice=None if isinstance(request.tool_choice, NamedTool) else request.tool_choice,
        named=named,
        parallel=request.parallel_tool_calls is not False,
        variables=request.chat_template_kwargs,
    )
    generation = _generation(context, request, turn, adapter)
    answering = _Answering(context, request, turn, generation)
    return Stream(answering.chunks()) if request.stream else await answering.whole()


def _generation(context: Context, request: ChatRequest, turn: Turn, adapter: str | None) -> GenerationRequest:
    service = context.service
    wanted, param = request.max_completion_tokens, "max_completion_tokens"
    if wanted is None:
        wanted, param = request.max_tokens, "max_tokens"
    elif request.max_tokens not in (None, wanted):
        raise bad_request("max_tokens and max_completion_tokens differ; give one of them", "max_tokens")
    if request.top_logprobs is not None and not request.logprobs:
        raise bad_request("top_logprobs needs logprobs=true", "top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise bad_request("stream_options needs stream=true", "stream_options")
    if request.prompt_logprobs is not None and request.stream:
        raise bad_request("prompt_logprobs does not go with stream; ask for a whole answer", "prompt_logprobs")
    num_completions = request.n or 1
    if num_completions > service.limits.max_completions:
        most = service.limits.max_completions
        raise bad_request(f"n={num_completions} is more than the {most} that this server allows", "n")
    sampling = openai_sampling(
        request,
        max_new_tokens=service.new_tokens(len(turn.prompt_ids), wanted, param),
        end_ids=service.end_ids,
        defaults=service.defaults,
        top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        structure=turn.structure,
    )
    return GenerationRequest(
        turn.prompt_ids,
        sampling,
        num_completions,
        adapter,
        request.priority or 0,
        request.cache_salt or "",
        service.timeout(),
    )


@dataclass
class _Answering:
    """One request while it is answered."""

    context: Context
    request: ChatRequest
    turn: Turn
    generation: GenerationRequest
    started: float = field(default_factory=monotonic)
    created: int = field(default_factory=lambda: int(time()))
    num_tokens: int = 0
    num_cached: int = 0
    prompt_scores: Any = None
    called: set[int] = field(default_factory=set[int])

    @property
    def id(self) -> str:
        """The completion's id."""
        return f"chatcmpl-{self.context.request_id.removeprefix('req_')}"

    @property
    def _new_id(self) -> partial[str]:
        return partial(new_call_id, self.turn.reading.calls)

    async def whole(self) -> ChatCompletion:
        """Everything at once."""
        answers = [WholeAnswer() for _ in range(self.generation.num_completions)]
        async with aclosing(self._answers()) as coming:
            async for answer in coming:
                answers[answer.delta.index].add(answer, self._new_id)
        shows_ids = bool(self.request.return_token_ids)
        scores = UNSET
        if self.request.prompt_logprobs is not None:
            scores = prompt_logprobs(self.turn.prompt_ids, self.prompt_scores, self.request.prompt_logprobs)
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.request.model,
            choices=[self._choice(index, answer) for index, answer in enumerate(answers)],
            usage=self._usage(),
            prompt_token_ids=self.turn.prompt_ids if shows_ids else UNSET,
            prompt_logprobs=scores,
        )

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Everything as it comes."""
        begun: set[int] = set()
        ids: dict[tuple[int, int], str] = {}
        async with aclosing(self._answers()) as coming:
            async for answer in coming:
                index = answer.delta.index
                if index not in begun:
                    first = ChunkChoice(index=index, delta=MessageDelta(role="assistant", content=""))
                    yield self._chunk([first], with_prompt=not begun)
                    begun.add(index)
                if choice := self._delta(answer, ids):
                    yield self._chunk([choice])
                if answer.is_last:
                    yield self._chunk([self._last(answer.delta)])
        if self.request.stream_options is not None and self.request.stream_options.include_usage:
            yield event(self._new_chunk([], usage=self._usage()))
        yield DONE

    async def _answers(self) -> AsyncGenerator[AnswerEvent]:
        """The answers, counted."""
        service = self.context.service
        answers = draw_answers(self.context, self.generation, self.turn.reading)
        try:
            async for answer in answers:
                delta = answer.delta
                self.num_tokens += len(delta.token_ids)
                self.num_cached = self.num_cached if delta.num_cached_tokens is None else delta.num_cached_tokens
                self.prompt_scores = delta.prompt_scores or self.prompt_scores
                if answer.piece.calls:
                    self.called.add(delta.index)
                service.check_ended(delta, self.started)
                yield answer
        finally:
            self.context.notes |= {"prompt_tokens": len(self.turn.prompt_ids), "completion_tokens": self.num_tokens}
            await answers.aclose()

    def _choice(self, index: int, answer: WholeAnswer) -> ChatChoice:
        calls = [
            ToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))
            for call in answer.calls
        ]
        content = answer.content.rstrip() if calls else answer.content
        scores = [score for delta in answer.deltas for score in delta.scores]
        return ChatChoice(
            index=index,
            message=AnswerMessage(
                content=None if calls and not content else content,
                reasoning_content=answer.reasoning or UNSET,
                tool_calls=calls or UNSET,
            ),
            finish_reason=self._finish_reason(answer.end),
            logprobs=self._logprobs(answer.token_ids, scores),
            stop_reason=self._stop(answer.end),
            token_ids=answer.token_ids if self.request.return_token_ids else UNSET,
        )

    def _delta(self, answer: AnswerEvent, ids: dict[tuple[int, int], str]) -> ChunkChoice | None:
        """What a delta adds; None when that is nothing."""
        piece, delta = answer.piece, answer.delta
        shows_tokens = delta.token_ids and (self.request.logprobs or self.request.return_token_ids)
        if not piece and not shows_tokens:
            return None
        calls: list[ToolCallDelta] = []
        for call in piece.calls:
            function = FunctionDelta(arguments=call.arguments)
            if call.name is None:
                calls.append(ToolCallDelta(index=call.index, function=function))
                continue
            function.name = call.name
            ids[delta.index, call.index] = self._new_id()
            calls.append(
                ToolCallDelta(index=call.index, id=ids[delta.index, call.index], type="function", function=function)
            )
        message = MessageDelta(
            content=piece.content if piece.content or not (piece.reasoning or calls) else UNSET,
            reasoning_content=piece.reasoning or UNSET,
            tool_calls=calls or UNSET,
        )
        return ChunkChoice(
            index=delta.index,
            delta=message,
            logprobs=self._logprobs(delta.token_ids, delta.scores),
            token_ids=delta.token_ids if self.request.return_token_ids else UNSET,
        )

    def _last(self, delta: Delta) -> ChunkChoice:
        return ChunkChoice(
            index=delta.index,
            delta=MessageDelta(),
            finish_reason=self._finish_reason(delta),
            stop_reason=self._stop(delta),
        )

    def _chunk(self, choices: list[ChunkChoice], *, with_prompt: bool = False) -> bytes:
        chunk = self._new_chunk(choices)
        if with_prompt and self.request.return_token_ids:
            chunk.prompt_token_ids = self.turn.prompt_ids
        if self.request.stream_options is not None and self.request.stream_options.include_usage:
            chunk.usage = None
        return event(chunk)

    def _new_chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatChunk:
        return ChatChunk(
            id=self.id,
            created=self.created,
            model=self.request.model,
            choices=choices,
            usage=UNSET if usage is None else usage,
        )

    def _logprobs(self, token_ids: list[int], scores: Any) -> ChoiceLogprobs | None:
        if not self.request.logprobs:
            return None
        return chat_logprobs(self.context.service.token_texts, token_ids, scores, self.request.top_logprobs or 0)

    def _finish_reason(self, delta: Delta) -> FinishReason:
        if delta.stop_reason == "length":
            return "length"
        return "tool_calls" if delta.index in self.called else "stop"

    def _stop(self, delta: Delta) -> str | int | None:
        """The stop string or token that the request named; the model's own end is none."""
        if isinstance(delta.stop, int) and delta.stop not in (self.request.stop_token_ids or ()):
            return None
        return delta.stop

    def _usage(self) -> Usage:
        size = len(self.turn.prompt_ids)
        return Usage(
            prompt_tokens=size,
            completion_tokens=self.num_tokens,
            total_tokens=size + self.num_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self.num_cached),
        )
