"""A tokenizer with its chat template: conversations to tokens, and tokens back to text."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from llmkit.data.chat.chat_template import ChatTemplate
from llmkit.data.chat.marks import Span
from llmkit.data.chat.spelled import spelled_specials
from llmkit.data.chat.template_abilities import TemplateAbilities
from llmkit.data.chat.template_input import Chat
from llmkit.data.chat.turn_spans import Layout, lay_out
from llmkit.data.tokenizing.encoding import TextEncoder, TokenizedText
from llmkit.errors import DataError, ModelError
from llmkit.types import Message, Source

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ENCODING_VERSION = 1
"""Raised whenever the same record gives other tokens or weights than before: what is kept in caches is made anew."""


class TextCodec:
    """A tokenizer and its chat template.

    A conversation is rendered as a whole and tokenized at once, so the ids are those of `apply_chat_template`, except
    where the text of a message spells a special token: that becomes ordinary tokens.

    Attributes:
        tokenizer: as it was given.
        template: the chat template; a tokenizer that has none raises a ModelError when messages are rendered.
        special_tokens_in_text: special tokens that messages spell are special all the same.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        *,
        special_tokens_in_text: bool = False,
    ) -> None:
        """Take the tokenizer, and a Jinja template in place of its own.

        Raises:
            ModelError: the template is not Jinja, or the tokenizer is not a fast one.
        """
        self.tokenizer = tokenizer
        self.special_tokens_in_text = special_tokens_in_text
        self.template = ChatTemplate(tokenizer, chat_template)
        self._chat_template = chat_template
        self._abilities = TemplateAbilities(self.template)
        self._encoder = TextEncoder(tokenizer)

    def __reduce__(self) -> tuple[Any, ...]:
        # Compiled templates and remembered words stay behind; another process makes its own.
        again = partial(TextCodec, special_tokens_in_text=self.special_tokens_in_text)
        return again, (self.tokenizer, self._chat_template)

    def prompt_ids(
        self,
        messages: Sequence[Message],
        source: Source | None = None,
        tools: str | None = None,
        variables: str | None = None,
    ) -> list[int]:
        """Ids of the conversation and of what makes the model answer.

        Args:
            messages: the conversation so far; see `prompt_messages` for a record that ends with its answer.
            source: where it came from, for the error.
            tools: JSON text of the tool schemas, as a record has it.
            variables: JSON text of an object with what else the template reads.
        Raises:
            DataError: the template refuses the conversation, or would leave something of it out.
        """
        return self._ids(Chat(tuple(messages), tools, source, variables), generation_prompt=True)

    def conversation_ids(
        self,
        messages: Sequence[Message],
        source: Source | None = None,
        tools: str | None = None,
        variables: str | None = None,
    ) -> list[int]:
        """Ids of the conversation alone, as it is trained on.

        Raises:
            DataError: the template refuses the conversation, or would leave something of it out.
        """
        return self._ids(Chat(tuple(messages), tools, source, variables), generation_prompt=False)

    def render_prompt(self, chat: Chat, *, generation_prompt: bool = True) -> tuple[str, list[Span]]:
        """The conversation as text, and where its contents spell special tokens that must stay text.

        Raises:
            DataError: the template refuses the conversation, or would leave something of it out.
        """
        self._abilities.check(chat)
        text = self.template.render_chat(chat, generation_prompt=generation_prompt)
        if self.special_tokens_in_text:
            return text, []
        return text, spelled_specials(self.template, chat, text, generation_prompt=generation_prompt)

    def lay_out(self, chat: Chat, wanted: Sequence[bool]) -> Layout:
        """The conversation as text, and where the wanted messages are in it.

        Raises:
            DataError: the template refuses the conversation, would leave something of it out, or changes contents so
                that they cannot be found again.
        """
        self._abilities.check(chat)
        return lay_out(self.template, chat, wanted, special_tokens_in_text=self.special_tokens_in_text)

    def encode_all(self, texts: Sequence[str], spelled: Sequence[Sequence[Span]]) -> list[TokenizedText | DataError]:
        """The tokens of rendered texts; see `TextEncoder.encode_all`."""
        return self._encoder.encode_all(texts, spelled)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Token ids as text, exactly as they are."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds; joined they are `decode(ids)`.

        A character made of several tokens is given to the last of them.
        """
        pieces: list[str] = []
        start = read = 0
        for end in range(1, len(ids) + 1):
            before = self.decode(ids[start:read])
            text = self.decode(ids[start:end])
            if text.endswith(REPLACEMENT) and end < len(ids):
                pieces.append("")
                continue
            pieces.append(text[len(before) :])
            start, read = read, end
        return pieces

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Ids that end a turn: the template's end-of-turn token, then the tokenizer's end-of-text token.

        Raises:
            ModelError: there is neither.
        """
        tokens = dict.fromkeys((self.template.end_of_turn, self.tokenizer.eos_token))
        ids = [self.tokenizer.convert_tokens_to_ids(token) for token in tokens if isinstance(token, str)]
        stops = tuple(token_id for token_id in ids if isinstance(token_id, int))
        if not stops:
            raise ModelError(
                f"{self.tokenizer.name_or_path}: no token ends an answer: the tokenizer has no eos_token, and its "
                "chat template writes no special token after an assistant's message"
            )
        return stops

    @cached_property
    def text_ends(self) -> tuple[list[int], list[int]]:
        """Ids that go before and after a plain text: what the tokenizer itself puts there, and the end of the text."""
        probe = "a"
        with_ends, bare = (list(self.tokenizer(probe, add_special_tokens=add)["input_ids"]) for add in (True, False))
        start = next(i for i in range(len(with_ends)) if with_ends[i : i + len(bare)] == bare)
        before, after = with_ends[:start], with_ends[start + len(bare) :]
        end_of_text = self.tokenizer.eos_token_id
        if isinstance(end_of_text, int) and end_of_text not in after:
            after.append(end_of_text)
        return before, after

    @property
    def num_ids(self) -> int:
        """One more than the greatest token id."""
        return self._encoder.num_ids

    @cached_property
    def fingerprint(self) -> str:
        """The same for codecs that give the same tokens."""
        parts = [
            ENCODING_VERSION,
            tokenizers.__version__,
            transformers.__version__,
            self._encoder.definition,
            {name: str(token) for name, token in self.tokenizer.special_tokens_map.items()},
            self.text_ends,
            self.template.sources,
            self.special_tokens_in_text,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _ids(self, chat: Chat, *, generation_prompt: bool) -> list[int]:
        text, spelled = self.render_prompt(chat, generation_prompt=generation_prompt)
        with naming(chat.place):
            return self._encoder.encode(text, spelled).token_ids


@contextmanager
def naming(source: Source | None) -> Iterator[None]:
    """Put the row's place before an error that does not know it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{source}: {error}" if source else str(error)) from None
