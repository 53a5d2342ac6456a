"""What a chat template writes of a conversation, and what it leaves out without a word."""

from functools import cached_property

from llmkit.data.chat.chat_template import ChatTemplate
from llmkit.data.chat.template_input import Chat
from llmkit.errors import DataError
from llmkit.types import Message, ToolCall

QUESTION = Message("user", "question")
NAME = "probe_name"
THOUGHT = "probe thought"
CALL = Message("assistant", "", tool_calls=(ToolCall(NAME, '{"probe": 1}', "call_prob"),))
TOOLS = (
    f'[{{"type": "function", "function": {{"name": "{NAME}", "description": "probe", '
    '"parameters": {"type": "object", "properties": {}}}}]'
)


class TemplateAbilities:
    """Finds by rendering probes what a template has a place for."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template

    def check(self, chat: Chat) -> None:
        """Refuse a conversation of which the template would drop something.

        Raises:
            DataError: names what, and the way out.
        """
        where, chatting = (f"{chat.place}: ", "the row") if chat.place else ("", "the conversation")
        other = "choose another template with --set model.chat_template=NAME (`qwen` and `deepseek` have all) or =FILE"
        if chat.tools not in (None, "[]") and not self.tools:
            raise DataError(f"{where}{chatting} has tools, and the chat template has no place for them; {other}")
        for message in chat.messages:
            if message.media:
                kinds = ", ".join(dict.fromkeys(part.type for part in message.media))
                raise DataError(
                    f"{where}a message has media ({kinds}), and the model reads text alone; remove such rows, or leave "
                    "them out with --set data.on_error=skip"
                )
            if message.tool_calls and not self.tool_calls:
                raise DataError(
                    f"{where}a message calls tools, and the chat template has no place for tool calls; {other}"
                )
            if message.reasoning and not self.reasoning:
                raise DataError(
                    f"{where}a message has reasoning, and the chat template has no place for it; {other}, or move it "
                    "into the content"
                )

    @cached_property
    def tools(self) -> bool:
        """Whether schemas of tools are written."""
        return self._shows(Chat((QUESTION,), TOOLS), NAME)

    @cached_property
    def tool_calls(self) -> bool:
        """Whether the assistant's calls of tools are written."""
        return self._shows(Chat((QUESTION, CALL)), NAME)

    @cached_property
    def reasoning(self) -> bool:
        """Whether what the assistant thinks is written, of its last turn at least."""
        return self._shows(Chat((QUESTION, Message("assistant", "answer", reasoning=THOUGHT))), THOUGHT)

    def _shows(self, chat: Chat, probe: str) -> bool:
        try:
            return probe in self._template.render_chat(chat)
        except DataError:
            # It refuses the probe; whether it takes the row shows when the row is rendered.
            return True
