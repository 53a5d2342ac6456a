"""A question with an instruction, and tools where there are some."""

import asyncio
from dataclasses import replace

from llmkit.data.codec import TextCodec
from llmkit.data.turns import prompt_messages
from llmkit.engines.inference.contract import InferenceEngine
from llmkit.rollout.workflows.conversation import Conversation
from llmkit.rollout.workflows.tool_loop import ToolLoop
from llmkit.types import Message, Part, Record, Rollout, SamplingParams


class Calling:
    """The workflow of `tools` and `math`."""

    def __init__(self, loop: ToolLoop | None, instruction: str = "") -> None:
        """Take the tools, None for none, and what is added to the user's last message."""
        self._loop = loop
        self._instruction = instruction
        self._opening = asyncio.Lock()
        self._is_open = False

    async def open(self, codec: TextCodec) -> None:
        """See `Workflow`."""
        async with self._opening:
            if self._loop is not None and not self._is_open:
                await self._loop.open(codec)
            self._is_open = True

    async def close(self) -> None:
        """See `Workflow`."""
        if self._loop is not None:
            await self._loop.toolbox.close()

    async def run(
        self, record: Record, engine: InferenceEngine, codec: TextCodec, sampling: SamplingParams, group_id: int
    ) -> Rollout:
        """Sample turns until one calls no tool."""
        await self.open(codec)
        messages = _with_instruction(prompt_messages(record), self._instruction)
        tools = record.tools if self._loop is None else self._loop.toolbox.schemas(record)
        conversation = Conversation(record, codec, sampling, messages=messages, tools=tools)
        if self._loop is None:
            await conversation.answer(engine)
        else:
            await self._loop.run(conversation, engine, codec)
        return conversation.rollout(group_id)


def _with_instruction(messages: tuple[Message, ...], instruction: str) -> tuple[Message, ...]:
    """The messages with the instruction behind the user's last one."""
    place = next((index for index in reversed(range(len(messages))) if messages[index].role == "user"), None)
    if not instruction or place is None:
        return messages
    asked = messages[place]
    if isinstance(asked.content, str):
        asked = replace(asked, content=f"{asked.content}\n\n{instruction}")
    else:
        asked = replace(asked, content=(*asked.content, Part(text=f"\n\n{instruction}")))
    return (*messages[:place], asked, *messages[place + 1 :])
