"""`/v1/completions` of servers that take and give text alone."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmkit.engines.inference.contract import Delta, GenerationRequest, TokenScores
from llmkit.engines.inference.remote.completions import PATH, PHASE, stop_reason_of
from llmkit.engines.inference.remote.contract import Link

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Choice(Struct):
    """One completion, or what is new of it."""

    index: int = 0
    text: str = ""
    finish_reason: str | None = None


class Completions(Struct):
    """An answer, or an event."""

    choices: list[Choice]


async def text_deltas(
    link: Link,
    body: Mapping[str, Any],
    request: GenerationRequest,
    tokenizer: "PreTrainedTokenizerBase",
    version: int,
    *,
    whole: bool,
    timeout_seconds: float,
) -> AsyncGenerator[Delta]:
    """Ask with the prompt's text, and take the text that comes; token ids are what our own tokenizer makes of it."""
    prompt = tokenizer.decode(list(request.prompt_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    body = {**body, "prompt": prompt, "stream": not whole}

    def delta(choice: Choice) -> Delta:
        token_ids = tokenizer(choice.text, add_special_tokens=False)["input_ids"] if choice.text else []
        assert isinstance(token_ids, list)
        reason = None if choice.finish_reason is None else stop_reason_of(link, choice.finish_reason)
        scores, versions = [TokenScores(None)] * len(token_ids), [version] * len(token_ids)
        return Delta(choice.index, token_ids, scores, versions, choice.text, reason)

    if whole:
        answer: Completions = await link.call(
            PATH, body, phase=PHASE, timeout_seconds=timeout_seconds, kind=Completions
        )
        for choice in answer.choices:
            yield delta(choice)
        return
    async with aclosing(link.events(PATH, body, phase=PHASE, kind=Completions)) as events:
        async for event in events:
            for choice in event.choices:
                yield delta(choice)
