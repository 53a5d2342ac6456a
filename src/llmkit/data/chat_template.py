"""Messages to text through a tokenizer's chat template, knowing which text came from the messages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from llmkit.errors import DataError, ModelError
from llmkit.types import Message, Source

PRIVATE = range(0x100000, 0x10FFFE)
"""Private-use characters that mark places in a rendering; they are taken out again before anything is tokenized."""
GENERATION = re.compile(r"\{%([-+]?)\s*(generation|endgeneration)\s*([-+]?)%\}")
Span = tuple[int, int]
"""Characters `[start, end)` of a rendering."""


@dataclass(frozen=True)
class Marked:
    """A rendering and the marks that stood in it.

    Attributes:
        text: the rendering without marks.
        marks: for each mark, where it stood in `text`, in order.
    """

    text: str
    marks: dict[str, list[int]]


class ChatTemplate:
    """A chat template with the special tokens of its tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        """Take `template`, or the tokenizer's own.

        Raises:
            ModelError: there is none, or it is not Jinja.
        """
        self._tokenizer = tokenizer
        self._name = tokenizer.name_or_path or type(tokenizer).__name__
        self._template = template if template is not None else self._own_template()
        self.has_generation_markers = "generation" in {match[2] for match in GENERATION.finditer(self._template)}
        self.special_tokens = frozenset(map(str, tokenizer.all_special_tokens)) | {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        }
        longest_first = sorted(filter(None, self.special_tokens), key=len, reverse=True)
        self.special_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self.end_of_turn = self._find_end_of_turn()

    def render(
        self, messages: Sequence[Message], *, generation_prompt: bool = False, place: Source | None = None
    ) -> str:
        """The conversation as text.

        Args:
            messages: the conversation.
            generation_prompt: end with what makes the model answer.
            place: where the messages came from, for the error.
        Raises:
            DataError: the template refuses the conversation.
        """
        return self._apply(self._template, [m.text for m in messages], messages, generation_prompt, place)

    def render_marked(
        self,
        messages: Sequence[Message],
        contents: Sequence[str],
        marks: str,
        *,
        generation_prompt: bool = False,
        place: Source | None = None,
    ) -> Marked:
        """The conversation with `contents`, which hold some of the characters `marks`, in place of its own."""
        return take_out(self._apply(self._template, contents, messages, generation_prompt, place), marks)

    def render_generations(self, messages: Sequence[Message], place: Source | None = None) -> tuple[str, list[Span]]:
        """The conversation, and the spans that the template's own `{% generation %}` markers enclose."""
        begin, end = unused_marks(messages, 2)
        # An `if` trims white space around it as the marker itself does.
        tracked = GENERATION.sub(
            lambda m: f"{{%{m[1]} if true %}}{begin if m[2] == 'generation' else end}{{% endif {m[3]}%}}",
            self._template,
        )
        contents = [message.text for message in messages]
        marked = take_out(self._apply(tracked, contents, messages, False, place), begin + end)
        return marked.text, list(zip(marked.marks[begin], marked.marks[end], strict=True))

    def spelled_specials(
        self, messages: Sequence[Message], text: str, *, generation_prompt: bool = False, place: Source | None = None
    ) -> list[Span]:
        """Where in the rendering `text` a message's own content spells a special token.

        Raises:
            DataError: the template treats such content in a way that cannot be followed.
        """
        if not any(self.special_pattern.search(message.text) for message in messages):
            return []
        (mark,) = unused_marks(messages, 1)
        contents = [self.special_pattern.sub(lambda match: mark + match[0], message.text) for message in messages]
        marked = self.render_marked(messages, contents, mark, generation_prompt=generation_prompt, place=place)
        if marked.text != text:
            where = f"{place}: " if place else ""
            raise DataError(
                f"{where}the content spells a special token of the model, and the chat template changes such content; "
                "take the token out of it"
            )
        matches = [self.special_pattern.match(text, position) for position in marked.marks[mark]]
        return [match.span() for match in matches if match]

    def _own_template(self) -> str:
        try:
            return self._tokenizer.get_chat_template()
        except ValueError:
            raise ModelError(
                f"{self._name}: the tokenizer has no chat template, so messages cannot become tokens. Use an instruct "
                "model, or give a Jinja file with --set model.chat_template=FILE"
            ) from None

    def _apply(
        self,
        template: str,
        contents: Sequence[str],
        messages: Sequence[Message],
        generation_prompt: bool,
        place: Source | None,
    ) -> str:
        turns: list[dict[str, Any]] = [
            {"role": message.role, "content": content} for message, content in zip(messages, contents, strict=True)
        ]
        try:
            rendered = self._tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=generation_prompt
            )
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(
                f"{self._name}: the chat template is not valid Jinja: line {error.lineno}: {error.message}. "
                "Give another one with --set model.chat_template=FILE"
            ) from None
        except Exception as error:  # noqa: BLE001 - a template is foreign code and may raise anything
            roles = ", ".join(message.role for message in messages) or "no message"
            where = f"{place}: " if place else ""
            raise DataError(f"{where}the chat template of {self._name} refuses this row ({roles}): {error}") from None
        assert isinstance(rendered, str)
        return rendered

    def _find_end_of_turn(self) -> str | None:
        """The special token that the template writes after an assistant's message."""
        probe = "probe"
        try:
            text = self.render([Message("user", "question"), Message("assistant", probe)])
        except DataError:
            return None
        match = self.special_pattern.search(text, text.rfind(probe) + len(probe))
        return match[0] if match else None


def unused_marks(messages: Sequence[Message], count: int) -> str:
    """`count` different private-use characters that no message has."""
    used = set().union(*(message.text for message in messages if not message.text.isascii()))
    return "".join(islice((chr(code) for code in PRIVATE if chr(code) not in used), count))


def take_out(rendered: str, marks: str) -> Marked:
    """Remove marks from a rendering and tell where they stood."""
    places: dict[str, list[int]] = {mark: [] for mark in marks}
    pieces: list[str] = []
    position = 0
    for piece in re.split(f"([{marks}])", rendered):
        if piece in places:
            places[piece].append(position)
        else:
            pieces.append(piece)
            position += len(piece)
    return Marked("".join(pieces), places)
