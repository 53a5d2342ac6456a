"""Messages to text through a tokenizer's chat template."""

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from transformers import PreTrainedTokenizerBase

# The sandbox and the filters that templates are written for; `apply_chat_template` compiles with the same function.
from transformers.utils.chat_template_utils import _compile_jinja_template

from llmkit.data.chat.marks import Marked, Span, take_out, unused_marks
from llmkit.data.chat.template_input import Chat, as_turn, check_has_messages, parse_tools, parse_variables
from llmkit.errors import DataError, ModelError
from llmkit.types import Message, Source

GENERATION = re.compile(r"\{%([-+]?)\s*(generation|endgeneration)\s*([-+]?)%\}")
CAPTURING = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock)
"""Blocks whose text goes through something else before it is written."""


class ChatTemplate:
    """A chat template with the special tokens of its tokenizer.

    A tokenizer without a template has one of these too; it raises a ModelError when something is rendered.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        """Take `template`, or the tokenizer's own.

        Raises:
            ModelError: it is not Jinja.
        """
        self._name = tokenizer.name_or_path or type(tokenizer).__name__
        self._variables = {name: _plain(token) for name, token in tokenizer.special_tokens_map.items()}
        self._plain, self._with_tools = _sources(tokenizer) if template is None else (template, template)
        self.special_tokens = frozenset(map(str, tokenizer.all_special_tokens)) | {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        }
        longest_first = sorted(filter(None, self.special_tokens), key=len, reverse=True)
        self.special_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        for source in filter(None, {self._plain, self._with_tools}):
            self._compile(source)

    @property
    def exists(self) -> bool:
        """Whether there is a template at all."""
        return self._plain is not None

    @property
    def sources(self) -> tuple[str, ...]:
        """The Jinja text; two where the tokenizer has another template for conversations with tools."""
        return tuple(dict.fromkeys(filter(None, (self._plain, self._with_tools))))

    @cached_property
    def has_generation_markers(self) -> bool:
        """Whether the template itself encloses what an assistant writes."""
        return any("generation" in {match[2] for match in GENERATION.finditer(source)} for source in self.sources)

    @cached_property
    def end_of_turn(self) -> str | None:
        """The special token that the template writes after an assistant's message; None when there is none."""
        probe = "probe"
        if not self.exists:
            return None
        try:
            text = self.render([Message("user", "question"), Message("assistant", probe)])
        except DataError:
            return None
        match = self.special_pattern.search(text, text.rfind(probe) + len(probe))
        return match[0] if match else None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: str | None = None,
        generation_prompt: bool = False,
        place: Source | None = None,
    ) -> str:
        """The conversation as text.

        Args:
            messages: the conversation.
            tools: JSON text of the list of tool schemas.
            generation_prompt: end with what makes the model answer.
            place: where the messages came from, for the error.
        Raises:
            DataError: the template refuses the conversation.
            ModelError: there is no template.
        """
        return self.render_chat(Chat(tuple(messages), tools, place), generation_prompt=generation_prompt)

    def render_chat(self, chat: Chat, *, generation_prompt: bool = False) -> str:
        """As `render`."""
        return self._apply(self._source(chat), chat, generation_prompt)

    def render_marked(self, chat: Chat, marks: str, *, generation_prompt: bool = False) -> Marked:
        """The rendering of a conversation whose texts hold some of the characters `marks`."""
        return take_out(self.render_chat(chat, generation_prompt=generation_prompt), marks)

    def render_generations(self, chat: Chat) -> tuple[str, list[Span] | None]:
        """The conversation, and the spans that the template's own `{% generation %}` markers enclose.

        Returns: None in place of spans when the template has no markers, or changes what they enclose.
        """
        source = self._source(chat)
        if not self.has_generation_markers:
            return self._apply(source, chat, False), None
        begin, end = unused_marks(chat.texts(), 2)
        marked = take_out(self._apply(_tracked(source, begin, end), chat, False), begin + end)
        if self._captures(source) and self._apply(source, chat, False) != marked.text:
            return self._apply(source, chat, False), None
        begins, ends = marked.marks[begin], marked.marks[end]
        return marked.text, list(zip(begins, ends, strict=True))

    def _source(self, chat: Chat) -> str:
        source = self._plain if chat.tools is None else self._with_tools
        if source is None:
            raise ModelError(
                f"{self._name}: the tokenizer has no chat template, so messages cannot become tokens. Use an instruct "
                "model, or give a template with --set model.chat_template=NAME (chatml, llama3, ...) or =FILE"
            )
        return source

    def _compile(self, source: str) -> jinja2.Template:
        try:
            return _compile_jinja_template(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(
                f"{self._name}: the chat template is not valid Jinja: line {error.lineno}: {error.message}. "
                "Give another one with --set model.chat_template=FILE"
            ) from None

    def _captures(self, source: str) -> bool:
        """Whether the template has blocks whose text it may change: marks in them could change it too."""
        if source not in self._capturing:
            tree = self._compile(source).environment.parse(GENERATION.sub("", source))
            self._capturing[source] = next(tree.find_all(CAPTURING), None) is not None
        return self._capturing[source]

    @cached_property
    def _capturing(self) -> dict[str, bool]:
        return {}

    def _apply(self, source: str, chat: Chat, generation_prompt: bool) -> str:
        check_has_messages(chat.messages, chat.place)
        compiled = self._compile(source)
        variables: dict[str, Any] = {
            **self._variables,
            **parse_variables(chat),
            "messages": [as_turn(message) for message in chat.messages],
            "tools": parse_tools(chat),
            "documents": None,
            "add_generation_prompt": generation_prompt,
        }
        try:
            return compiled.render(variables)
        except Exception as error:  # noqa: BLE001 - a template is foreign code and may raise anything
            roles = ", ".join(message.role for message in chat.messages)
            where, chatting = (f"{chat.place}: ", "row") if chat.place else ("", "conversation")
            raise DataError(
                f"{where}the chat template of {self._name} refuses this {chatting} ({roles}): {error}"
            ) from None


@lru_cache(maxsize=64)
def _tracked(source: str, begin: str, end: str) -> str:
    """The template with marks in place of its generation markers."""
    # An `if` trims white space around it as the marker itself does.
    return GENERATION.sub(
        lambda m: f"{{%{m[1]} if true %}}{begin if m[2] == 'generation' else end}{{% endif {m[3]}%}}", source
    )


def _plain(token: Any) -> Any:
    """A special token, or a list of them, as plain text."""
    return [str(one) for one in token] if isinstance(token, list | tuple) else str(token)


def _sources(tokenizer: PreTrainedTokenizerBase) -> tuple[str | None, str | None]:
    """The tokenizer's template, and the one for conversations with tools; a tokenizer may have several by name."""
    try:
        return tokenizer.get_chat_template(), tokenizer.get_chat_template(tools=[])
    except ValueError:
        return None, None
