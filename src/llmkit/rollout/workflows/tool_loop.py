"""Turns of a model that calls tools, until it answers."""

import asyncio
from dataclasses import dataclass

from llmkit.data.chat.parsing.pieces import Piece
from llmkit.data.chat.parsing.reasoning import OPEN, Thinking
from llmkit.data.chat.parsing.tools import PARSERS, find_parser
from llmkit.data.codec import TextCodec
from llmkit.engines.inference.contract import InferenceEngine
from llmkit.errors import ModelError
from llmkit.rollout.workflows.conversation import Conversation
from llmkit.rollout.workflows.toolbox import Toolbox
from llmkit.rollout.workflows.turn_tokens import call_id, check_template
from llmkit.types import Message, ToolCall


@dataclass(frozen=True)
class ToolLoop:
    """How tools are called.

    Attributes:
        toolbox: the tools.
        parser: how the model writes calls: `hermes`, `llama3`, `mistral`; `auto` goes by the chat template.
        max_turns: most turns of the model.
    """

    toolbox: Toolbox
    parser: str
    max_turns: int

    async def open(self, codec: TextCodec) -> None:
        """Check the chat template and open the tools.

        Raises:
            ModelError: the template rewrites earlier turns, or nobody knows how its model writes calls.
            ConfigError: a tool cannot be had.
        """
        check_template(codec, with_tools=True)
        self.parser_name(codec)
        await self.toolbox.open()

    def parser_name(self, codec: TextCodec) -> str:
        """The parser for a model with this template.

        Raises:
            ModelError: there is none.
        """
        name = find_parser(self.parser, codec.template.sources)
        if name is None:
            raise ModelError(
                "The chat template does not show how its model writes calls of tools; say it with "
                f"--set workflow.tool_parser=NAME: {', '.join(PARSERS)}"
            )
        return name

    async def run(self, conversation: Conversation, engine: InferenceEngine, codec: TextCodec) -> None:
        """Sample turns and call what they call, until one calls nothing or turns or tokens are used up."""
        parser = self.parser_name(codec)
        num_calls = 0
        while await conversation.answer(engine):
            calls = read_calls(conversation.last_turn_raw, parser, first_id=num_calls)
            if not calls:
                return
            if len(conversation.turns) == self.max_turns:
                conversation.stop_reason = "length"
                return
            num_calls += len(calls)
            results = await asyncio.gather(*(self.toolbox.call(call) for call in calls))
            messages = [
                Message("tool", result, tool_call_id=call.id, name=call.name)
                for call, result in zip(calls, results, strict=True)
            ]
            if not conversation.give(messages, calls):
                return


def read_calls(text: str, parser: str, first_id: int = 0) -> list[ToolCall]:
    """The calls in a turn; those within `<think>` are thoughts.

    Args:
        text: of the turn, with the special tokens that begin calls.
        parser: name of it.
        first_id: number of the first call in the conversation.
    """
    reader = PARSERS[parser]()
    reading = Thinking(reader, begun="</think>" in text and OPEN not in text)
    pieces: list[Piece] = [reading.push(text), reading.finish()]
    names: list[str] = []
    arguments: list[str] = []
    for delta in (call for piece in pieces for call in piece.calls):
        if delta.name is not None:
            names.append(delta.name)
            arguments.append("")
        arguments[-1] += delta.arguments
    return [
        ToolCall(name, written, call_id(first_id + index))
        for index, (name, written) in enumerate(zip(names, arguments, strict=True))
    ]
