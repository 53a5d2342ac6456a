"""Rendered text to token ids with the characters that each token covers."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from llmkit.data.chat_template import Span
from llmkit.errors import DataError, ModelError


@dataclass(frozen=True)
class Encoded:
    """T token ids, and for each the characters `[start, end)` of the text that it covers.

    Tokens that are parts of one character each cover the whole of it.
    """

    token_ids: list[int]
    spans: list[Span]


class TextEncoder:
    """Encodes rendered conversations; only the template's own special tokens become control tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"{tokenizer.name_or_path}: the tokenizer cannot tell which text a token covers; llmkit needs a fast "
                "tokenizer (tokenizer.json). Name one with --set model.tokenizer=DIR"
            )
        self._tokenizer = tokenizer
        self._special_ids = frozenset(tokenizer.all_special_ids) | {
            token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
        }

    def encode(self, text: str, spelled: Sequence[Span] = ()) -> Encoded:
        """The ids of the whole text, encoded at once.

        Args:
            text: a rendered conversation, with the template's own begin-of-text token where it has one.
            spelled: where contents spell special tokens; those become the ordinary tokens of their characters.
        Raises:
            DataError: the text has characters that no file can hold (half of a surrogate pair), or the tokenizer
                cannot write a special token as text.
        """
        if not text.isascii():
            _check_surrogates(text)
        encoded = self._encode(text, honour_specials=True)
        if not spelled:
            return encoded
        ids: list[int] = []
        spans: list[Span] = []
        for token_id, span in zip(encoded.token_ids, encoded.spans, strict=True):
            if token_id in self._special_ids and any(span[0] < end and start < span[1] for start, end in spelled):
                as_text = self._encode_as_text(text[span[0] : span[1]])
                ids += as_text.token_ids
                spans += [(start + span[0], end + span[0]) for start, end in as_text.spans]
            else:
                ids.append(token_id)
                spans.append(span)
        return Encoded(ids, spans)

    def _encode(self, text: str, *, honour_specials: bool) -> Encoded:
        encoding = self._tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            split_special_tokens=not honour_specials,
            verbose=False,
        )
        return Encoded(list(encoding["input_ids"]), [tuple(span) for span in encoding["offset_mapping"]])

    def _encode_as_text(self, text: str) -> Encoded:
        """The ids of a special token's characters.

        Some tokenizers put a space before the first word of a text, so a line break goes first and is taken out again.
        """
        after_break = self._encode("\n" + text, honour_specials=False)
        kept = [
            (i, (s - 1, e - 1)) for i, (s, e) in zip(after_break.token_ids, after_break.spans, strict=True) if e > 1
        ]
        if any(start < 0 for _, (start, _) in kept):
            encoded = self._encode(text, honour_specials=False)
        else:
            encoded = Encoded([token_id for token_id, _ in kept], [span for _, span in kept])
        if self._special_ids.intersection(encoded.token_ids):
            raise DataError(
                f"the content spells the special token {text.strip()!r}, which this tokenizer cannot write as text; "
                "take it out of the content"
            )
        return encoded


def _check_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the content has the character U+{ord(text[error.start]):04X}, half of a surrogate pair; write the row "
            "again as UTF-8"
        ) from None
