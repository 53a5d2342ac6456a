"""Rendered text to token ids with the characters that each token covers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import le, lt

from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

from llmkit.data.chat.marks import Span
from llmkit.data.tokenizing.lexicon import open_lexicon
from llmkit.errors import DataError, ModelError


@dataclass
class TokenizedText:
    """T token ids; token t covers the characters `[starts[t], ends[t])` of the text.

    Tokens that are parts of one character each cover the whole of it.

    Attributes:
        is_regular: each token covers something, and neither `starts` nor `ends` ever falls.
    """

    token_ids: list[int]
    starts: list[int]
    ends: list[int]
    is_regular: bool = True

    def add(self, token_ids: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> None:
        """Tokens that come next."""
        self.token_ids += token_ids
        self.starts += starts
        self.ends += ends

    def append(self, other: "TokenizedText", position: int) -> None:
        """The tokens of a text that begins at `position`."""
        self.add(other.token_ids, [start + position for start in other.starts], [end + position for end in other.ends])
        self.is_regular &= other.is_regular


class TextEncoder:
    """Encodes rendered conversations; only the template's own special tokens become control tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"{tokenizer.name_or_path}: the tokenizer cannot tell which text a token covers; llmkit needs a fast "
                "tokenizer (tokenizer.json). Name one with --set model.tokenizer=DIR"
            )
        self._backend = _plain_copy(tokenizer.backend_tokenizer)  # type: ignore[attr-defined] - fast ones have it
        self._special_ids = frozenset(tokenizer.all_special_ids) | {
            token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._lexicon = open_lexicon(self._backend)

    @cached_property
    def definition(self) -> str:
        """The tokenizer as JSON text."""
        return self._backend.to_str()

    @cached_property
    def num_ids(self) -> int:
        """One more than the greatest id."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str, spelled: Sequence[Span] = ()) -> TokenizedText:
        """As `encode_all`, for one text.

        Raises:
            DataError: as it gives there.
        """
        (encoded,) = self.encode_all([text], [spelled])
        if isinstance(encoded, DataError):
            raise encoded
        return encoded

    def encode_all(self, texts: Sequence[str], spelled: Sequence[Sequence[Span]]) -> list[TokenizedText | DataError]:
        """The ids of each whole text.

        Args:
            texts: rendered conversations, with the template's own begin-of-text token where it has one.
            spelled: for each text, where contents spell special tokens; those become the ordinary tokens of their
                characters.
        Returns: for each text its tokens; an error where the text has characters that no file can hold (half of a
            surrogate pair), or the tokenizer cannot write a special token as text.
        """
        faults = [surrogate_fault(text) for text in texts]
        sound = [text for text, fault in zip(texts, faults, strict=True) if fault is None]
        encoded = iter(self._encode_sound(sound))
        results = [fault or next(encoded) for fault in faults]
        return [
            self._spell_out(text, result, spans) if spans and isinstance(result, TokenizedText) else result
            for text, result, spans in zip(texts, results, spelled, strict=True)
        ]

    def _encode_sound(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Every text by the lexicon as far as that goes, and the rest in one call of the tokenizer."""
        if self._lexicon is None:
            return [_tokens(encoding) for encoding in self._backend.encode_batch(texts, add_special_tokens=False)]
        split = [self._lexicon.split(text) for text in texts]
        known = [list(map(self._lexicon.knows, pieces)) for pieces in split]
        foreign = [
            piece
            for pieces, flags in zip(split, known, strict=True)
            if not all(flags)
            for piece, is_known in zip(pieces, flags, strict=True)
            if not is_known
        ]
        encodings = iter(self._backend.encode_batch(foreign, add_special_tokens=False) if foreign else ())
        return [
            TokenizedText(*self._lexicon.encode(pieces)) if all(flags) else self._assemble(pieces, flags, encodings)
            for pieces, flags in zip(split, known, strict=True)
        ]

    def _assemble(self, pieces: Sequence[str], known: Sequence[bool], encodings: Iterator[Encoding]) -> TokenizedText:
        """The tokens of pieces; `encodings` are of those that the lexicon does not know."""
        assert self._lexicon is not None
        tokens = TokenizedText([], [], [])
        position = 0
        for piece, is_known in zip(pieces, known, strict=True):
            if is_known:
                tokens.add(*self._lexicon.encode([piece], position))
            else:
                tokens.append(_tokens(next(encodings)), position)
            position += len(piece)
        return tokens

    def _spell_out(self, text: str, tokens: TokenizedText, spelled: Sequence[Span]) -> TokenizedText | DataError:
        """The tokens with the special ones that contents spell taken apart."""
        spelled_out = TokenizedText([], [], [], tokens.is_regular)
        try:
            for token_id, start, end in zip(tokens.token_ids, tokens.starts, tokens.ends, strict=True):
                if token_id in self._special_ids and any(start < stop and first < end for first, stop in spelled):
                    spelled_out.append(self._encode_as_text(text[start:end]), start)
                else:
                    spelled_out.add([token_id], [start], [end])
        except DataError as error:
            return error
        return spelled_out

    def _encode_as_text(self, text: str) -> TokenizedText:
        """The ids of a special token's characters.

        Some tokenizers put a space before the first word of a text, so a line break goes first and is taken out again.
        """
        after_break = self._encode_all_as_text("\n" + text)
        kept = [token for token in after_break if token[2] > 1]
        if any(start < 1 for _, start, _ in kept):
            kept = [(token_id, start + 1, end + 1) for token_id, start, end in self._encode_all_as_text(text)]
        if any(token_id in self._special_ids for token_id, _, _ in kept):
            raise DataError(
                f"the content spells the special token {text.strip()!r}, which this tokenizer cannot write as text; "
                "take it out of the content"
            )
        token_ids = [token_id for token_id, _, _ in kept]
        return TokenizedText(token_ids, [start - 1 for _, start, _ in kept], [end - 1 for _, _, end in kept])

    def _encode_all_as_text(self, text: str) -> list[tuple[int, int, int]]:
        """Tokens with their characters; special tokens count as ordinary text."""
        encoding = self._without_specials.encode(text, add_special_tokens=False)
        return [(token_id, start, end) for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)]

    @cached_property
    def _without_specials(self) -> Tokenizer:
        copy = _plain_copy(self._backend)
        copy.encode_special_tokens = True
        return copy


def surrogate_fault(text: str) -> DataError | None:
    """The error of a text with half of a surrogate pair, which is no character; None for a sound one."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return DataError(
            f"the content has the character U+{ord(text[error.start]):04X}, half of a surrogate pair; write the row "
            "again as UTF-8"
        )
    return None


def _plain_copy(backend: Tokenizer) -> Tokenizer:
    """The tokenizer as it is without settings for other uses: padding, truncation, what is put around a text.

    Post-processors also move the ends of tokens off white space, which the tokens do cover.
    """
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    copy.post_processor = None  # type: ignore[assignment] - the stub does not know that it may be left out
    copy.encode_special_tokens = False
    return copy


def _tokens(encoding: Encoding) -> TokenizedText:
    offsets = encoding.offsets
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    grows = all(map(le, starts, starts[1:])) and all(map(le, ends, ends[1:]))
    return TokenizedText(encoding.ids, starts, ends, grows and all(map(lt, starts, ends)))
