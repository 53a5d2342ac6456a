"""`POST /v1/completions`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from time import monotonic, time

from msgspec import UNSET

from llmkit.engines.inference.contract import Delta, GenerationRequest, TokenScores
from llmkit.serve.api_errors import bad_request
from llmkit.serve.context import Context
from llmkit.serve.endpoints.logprobs import prompt_logprobs, text_logprobs
from llmkit.serve.sampling import openai_sampling
from llmkit.serve.schemas.common import PromptTokensDetails, Usage
from llmkit.serve.schemas.completions import CompletionRequest, TextChoice, TextCompletion, TextLogprobs
from llmkit.serve.service import Service
from llmkit.serve.streams import DONE, Stream, event

DEFAULT_TOKENS = 16


async def completions(context: Context, request: CompletionRequest) -> TextCompletion | Stream:
    """Go on with one or several prompts."""
    service = context.service
    adapter = service.find_model(request.model)
    context.notes["model"] = request.model
    _check(service, request)
    prompts = await read_prompts(service, request.prompt)
    num_completions = len(prompts) * (request.n or 1)
    if num_completions > service.limits.max_completions:
        raise bad_request(
            f"{len(prompts)} prompts times n={request.n or 1} is more than the {service.limits.max_completions} "
            "completions that this server allows for a request",
            "n",
        )
    generations = [_generation(service, request, prompt_ids, adapter) for prompt_ids in prompts]
    answering = _Answering(context, request, generations)
    return Stream(answering.chunks()) if request.stream else await answering.whole()


async def read_prompts(service: Service, prompt: str | list[str | int | list[int]]) -> list[list[int]]:
    """The prompts as token ids.

    Raises:
        ApiError: 400, texts and tokens are mixed, or a prompt does not fit.
    """
    if isinstance(prompt, str):
        prompts = [await service.text_ids(prompt)]
    elif all(isinstance(item, int) for item in prompt):
        prompts = [[item for item in prompt if isinstance(item, int)]]
    elif all(isinstance(item, str) for item in prompt):
        prompts = [await service.text_ids(item) for item in prompt if isinstance(item, str)]
    elif all(isinstance(item, list) for item in prompt):
        prompts = [item for item in prompt if isinstance(item, list)]
    else:
        raise bad_request("prompt: give a text, token ids, a list of texts, or a list of lists of token ids", "prompt")
    for prompt_ids in prompts:
        service.check_prompt(prompt_ids, "prompt")
    return prompts


def _check(service: Service, request: CompletionRequest) -> None:
    if request.suffix:
        raise bad_request("suffix: no model here can fill in the middle; leave it out", "suffix")
    if request.best_of not in (None, request.n or 1):
        raise bad_request("best_of: there is no search here; leave it out, or make it equal to n", "best_of")
    if request.max_tokens == 0 and not request.echo:
        raise bad_request("max_tokens=0 needs echo=true; otherwise there is nothing to answer", "max_tokens")
    if request.echo and request.stream:
        raise bad_request("echo does not go with stream; the prompt is known already", "echo")
    if request.stream_options is not None and not request.stream:
        raise bad_request("stream_options needs stream=true", "stream_options")
    if request.prompt_logprobs is not None and request.stream:
        raise bad_request("prompt_logprobs does not go with stream; ask for a whole answer", "prompt_logprobs")


def _generation(
    service: Service, request: CompletionRequest, prompt_ids: list[int], adapter: str | None
) -> GenerationRequest:
    wanted = DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
    if request.max_tokens is None:
        wanted = min(wanted, service.new_tokens(len(prompt_ids), None))
    # Nothing but the prompt's scores is wanted of max_tokens=0; one token is drawn and dropped.
    sampling = openai_sampling(
        request,
        max_new_tokens=service.new_tokens(len(prompt_ids), max(1, wanted)),
        end_ids=service.end_ids,
        defaults=service.defaults,
        top_logprobs=request.logprobs,
    )
    if request.echo and request.logprobs is not None:
        sampling = replace(sampling, prompt_logprobs=True)
    return GenerationRequest(
        prompt_ids,
        sampling,
        request.n or 1,
        adapter,
        request.priority or 0,
        request.cache_salt or "",
        service.timeout(),
    )


@dataclass
class _Text:
    """One completion so far."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list[int])
    scores: list[TokenScores] = field(default_factory=list[TokenScores])
    end: Delta | None = None
    offset: int = 0


@dataclass
class _Answering:
    """One request while it is answered."""

    context: Context
    request: CompletionRequest
    generations: list[GenerationRequest]
    started: float = field(default_factory=monotonic)
    created: int = field(default_factory=lambda: int(time()))
    num_tokens: int = 0
    num_cached: int = 0

    def __post_init__(self) -> None:
        self._prompt_scores: list[list[TokenScores]] = [[] for _ in self.generations]
        self._num_each = self.request.n or 1
        self._texts = [_Text() for _ in range(len(self.generations) * self._num_each)]

    async def whole(self) -> TextCompletion:
        """Everything at once."""
        async with aclosing(self._deltas()) as deltas:
            async for place, delta in deltas:
                text = self._texts[place]
                text.text += delta.text
                text.token_ids += delta.token_ids
                text.scores += delta.scores
                text.end = delta
        if self.request.max_tokens == 0:
            self._texts = [_Text(end=text.end) for text in self._texts]
            self.num_tokens = 0
        return self._document([self._choice(place) for place in range(len(self._texts))], self._usage())

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Everything as it comes."""
        wants_usage = self.request.stream_options is not None and self.request.stream_options.include_usage
        async with aclosing(self._deltas()) as deltas:
            async for place, delta in deltas:
                shows_tokens = delta.token_ids and (self.request.logprobs is not None or self.request.return_token_ids)
                if delta.text or shows_tokens or delta.stop_reason:
                    yield event(self._document([self._chunk(place, delta)], None if wants_usage else UNSET))
        if wants_usage:
            yield event(self._document([], self._usage()))
        yield DONE

    async def _deltas(self) -> AsyncGenerator[tuple[int, Delta]]:
        """Deltas with the place of their choice, counted."""
        service = self.context.service
        drawn = self.context.draw(self.generations)
        try:
            async for number, delta in drawn:
                self.num_tokens += len(delta.token_ids)
                self.num_cached += delta.num_cached_tokens or 0
                if delta.prompt_scores is not None:
                    self._prompt_scores[number] = delta.prompt_scores
                service.check_ended(delta, self.started)
                yield number * self._num_each + delta.index, delta
        finally:
            self.context.notes |= {"prompt_tokens": self._prompt_tokens(), "completion_tokens": self.num_tokens}
            await drawn.aclose()

    def _choice(self, place: int) -> TextChoice:
        text, number = self._texts[place], place // self._num_each
        prompt_ids, scores = list(self.generations[number].prompt_ids), self._prompt_scores[number]
        shown, ids, all_scores = text.text, text.token_ids, text.scores
        if self.request.echo:
            shown = self.context.service.codec.decode(prompt_ids, skip_special_tokens=True) + shown
            ids, all_scores = prompt_ids + ids, scores + all_scores
        assert text.end is not None, "every completion has an end"
        wants_scores = self.request.prompt_logprobs
        return TextChoice(
            index=place,
            text=shown,
            logprobs=self._logprobs(text, ids, all_scores),
            finish_reason="length" if text.end.stop_reason == "length" or self.request.max_tokens == 0 else "stop",
            stop_reason=self._stop(text.end),
            token_ids=text.token_ids if self.request.return_token_ids else UNSET,
            prompt_token_ids=prompt_ids if self.request.return_token_ids else UNSET,
            prompt_logprobs=UNSET if wants_scores is None else prompt_logprobs(prompt_ids, scores, wants_scores),
        )

    def _chunk(self, place: int, delta: Delta) -> TextChoice:
        return TextChoice(
            index=place,
            text=delta.text,
            logprobs=self._logprobs(self._texts[place], delta.token_ids, delta.scores) if delta.token_ids else None,
            finish_reason=None
            if delta.stop_reason is None
            else ("length" if delta.stop_reason == "length" else "stop"),
            stop_reason=self._stop(delta),
            token_ids=delta.token_ids if self.request.return_token_ids else UNSET,
        )

    def _logprobs(self, text: _Text, token_ids: list[int], scores: list[TokenScores]) -> TextLogprobs | None:
        if self.request.logprobs is None:
            return None
        texts = self.context.service.token_texts
        lists, text.offset = text_logprobs(texts, token_ids, scores, self.request.logprobs, text.offset)
        return lists

    def _stop(self, delta: Delta) -> str | int | None:
        if isinstance(delta.stop, int) and delta.stop not in (self.request.stop_token_ids or ()):
            return None
        return delta.stop

    def _document(self, choices: list[TextChoice], usage: object) -> TextCompletion:
        return TextCompletion(
            id=f"cmpl-{self.context.request_id.removeprefix('req_')}",
            created=self.created,
            model=self.request.model,
            choices=choices,
            usage=usage,  # type: ignore[arg-type] - usage, null, or not there
        )

    def _prompt_tokens(self) -> int:
        return sum(len(generation.prompt_ids) for generation in self.generations)

    def _usage(self) -> Usage:
        size = self._prompt_tokens()
        return Usage(
            prompt_tokens=size,
            completion_tokens=self.num_tokens,
            total_tokens=size + self.num_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self.num_cached),
        )
