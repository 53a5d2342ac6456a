"""Renderings of a conversation's beginnings, each made once."""

from llmkit.data.chat.chat_template import ChatTemplate
from llmkit.data.chat.template_input import Chat
from llmkit.errors import DataError


class Prefixes:
    """Renders a conversation's first messages.

    Attributes:
        template: the chat template.
        chat: the whole conversation.
    """

    def __init__(self, template: ChatTemplate, chat: Chat) -> None:
        self.template = template
        self.chat = chat
        self._rendered: dict[tuple[int, bool], str | None] = {}

    def through(self, count: int) -> str | None:
        """The first `count` messages; None when the template refuses them, as it does an empty conversation."""
        return self._render(count, False)

    def prompt(self, count: int) -> str | None:
        """The first `count` messages and what makes the model answer; None as above."""
        return self._render(count, True)

    def _render(self, count: int, generation_prompt: bool) -> str | None:
        key = count, generation_prompt
        if key not in self._rendered:
            try:
                first = self.chat.first(count)
                self._rendered[key] = self.template.render_chat(first, generation_prompt=generation_prompt)
            except DataError:
                self._rendered[key] = None
        return self._rendered[key]
