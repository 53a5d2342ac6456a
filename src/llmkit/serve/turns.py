"""A conversation on its way to the engine, the same for both chat APIs."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.serve.context import Context
from llmkit.serve.conversation import Choice, read_choice, tools_text
from llmkit.serve.parsing.answers import AnswerEvent, Reading, begins_thinking, read_answers
from llmkit.serve.schemas.chat import Tool
from llmkit.serve.service import Service
from llmkit.types import Message, Structure

PROMPT_END = 8
"""Tokens of a prompt's end to look for the beginning of thoughts in."""


@dataclass(frozen=True)
class Turn:
    """A prompt, and how the answers to it are read.

    Attributes:
        prompt_ids: the conversation as tokens, up to where the answer begins.
        reading: how to read answers.
        structure: what they must look like, when a call is forced.
    """

    prompt_ids: list[int]
    reading: Reading
    structure: Structure | None


async def make_turn(
    service: Service,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] | None = None,
    choice: Choice | None = None,
    named: str | None = None,
    parallel: bool = True,
    begun: str = "",
    variables: Mapping[str, Any] | None = None,
) -> Turn:
    """Make a conversation ready for the engine.

    Args:
        service: whose model it is for.
        messages: the conversation.
        tools: what the model may call; with the choice `none` it does not hear of them.
        choice: see `read_choice`.
        named: see `read_choice`.
        parallel: see `read_choice`.
        begun: the answer's first words, which the model goes on from.
        variables: what else the chat template reads.
    Raises:
        ApiError: 400.
        DataError: the chat template refuses the conversation.
    """
    reading, structure = read_choice(tools, choice, named, parallel=parallel, parser=service.tool_parser)
    offered = None if choice == "none" else tools_text(tools)
    prompt_ids = await service.chat_ids(messages, offered, variables=variables)
    if begun:
        prompt_ids += await service.text_ids(begun, special_tokens=False, is_plain=True)
    service.check_prompt(prompt_ids)
    if service.thinks and structure is None and not begun:
        end = service.codec.decode(prompt_ids[-PROMPT_END:])
        reading = replace(reading, reasoning=True, thinking_begun=begins_thinking(end))
    return Turn(prompt_ids, reading, structure)


async def draw_answers(context: Context, request: GenerationRequest, reading: Reading) -> AsyncGenerator[AnswerEvent]:
    """The answers of one request as they come."""
    answers = read_answers(_one(context, request), reading, context.service.codec.tokenizer)
    try:
        async for answer in answers:
            yield answer
    finally:
        await answers.aclose()


async def _one(context: Context, request: GenerationRequest) -> AsyncGenerator[Delta]:
    drawn = context.draw([request])
    try:
        async for _, delta in drawn:
            yield delta
    finally:
        await drawn.aclose()
