"""From tokens to text, one token at a time, with the text that a tokenizer makes of all of them together."""

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_PATIENCE = 8
"""Held tokens that are decoded again with each new one; beyond, with each doubling."""


class Detokenizer(Protocol):
    """The text of one sequence of tokens."""

    def push(self, token_id: int) -> str:
        """Text that no later token can change any more."""
        ...

    def ahead(self) -> str:
        """More text that would follow if no token came; empty where that is unknown."""
        ...

    def finish(self) -> str:
        """The rest, when no more tokens come."""
        ...


def make_detokenizer(tokenizer: "PreTrainedTokenizerBase") -> Detokenizer:
    """The one for a tokenizer's kind of tokens."""
    if tokenizer not in _FACTS:
        _FACTS[tokenizer] = _Facts(_decoder_kinds(tokenizer), _special_ids(tokenizer))
    facts = _FACTS[tokenizer]
    return (ByteLevelDetokenizer if facts.decoders == ["ByteLevel"] else WindowDetokenizer)(tokenizer, facts)


class _Facts(NamedTuple):
    """What to know of a tokenizer: the types of its decoders, in turn, and the tokens that are no text."""

    decoders: list[str]
    special: frozenset[int]


_FACTS: "WeakKeyDictionary[PreTrainedTokenizerBase, _Facts]" = WeakKeyDictionary()


class ByteLevelDetokenizer:
    """Byte-level BPE: every token is a string of bytes, whatever is around it."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", facts: _Facts) -> None:
        self._tokenizer = tokenizer
        self._special = facts.special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        token = _text_token(self._tokenizer, self._special, token_id)
        return self._decoder.decode(_token_bytes(token)) if token is not None else ""

    def ahead(self) -> str:
        return ""

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """Any tokenizer: decodes the new tokens behind some that came before, and takes what they add.

    The tokens before are there for rules about neighbours and about the beginning of the text, such as the first word's
    space that SentencePiece drops. Tokens wait while their text may change: bytes of a character, and any run of byte
    tokens, which becomes replacement characters as a whole when one byte of it makes no sense.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", facts: _Facts) -> None:
        self._tokenizer = tokenizer
        self._special = facts.special
        self._has_byte_tokens = "ByteFallback" in facts.decoders
        self._before: list[int] = []
        self._held: list[int] = []
        self._run: codecs.IncrementalDecoder | None = None
        self._run_text = ""
        self._look_again_at = 0

    def push(self, token_id: int) -> str:
        token = _text_token(self._tokenizer, self._special, token_id)
        if token is None:
            return ""
        self._held.append(token_id)
        if self._has_byte_tokens and self._take_byte(token):
            return ""
        if len(self._held) < self._look_again_at:
            return ""
        text = self._new_text()
        if text.endswith(REPLACEMENT):
            self._look_again_at = 2 * len(self._held) if len(self._held) > _PATIENCE else 0
            return ""
        return self._release(text)

    def ahead(self) -> str:
        return self._run_text

    def finish(self) -> str:
        return self._release(self._new_text()) if self._held else ""

    def _take_byte(self, token: str) -> bool:
        """Follow a run of byte tokens; False for any other token."""
        if _BYTE_TOKEN.fullmatch(token) is None:
            self._run, self._run_text = None, ""
            return False
        if len(self._held) == 1:
            self._run, self._run_text = codecs.getincrementaldecoder("utf-8")(errors="strict"), ""
        if self._run is not None:
            try:
                self._run_text += self._run.decode(bytes([int(token[3:5], 16)]))
            except UnicodeDecodeError:
                self._run, self._run_text = None, ""
        return True

    def _new_text(self) -> str:
        known, whole = self._decode(self._before), self._decode(self._before + self._held)
        return whole[len(known) :]

    def _release(self, text: str) -> str:
        # Tokens without text may be a space that was dropped at the beginning: the next ones still need it before them.
        self._before = self._held if text else self._before + self._held
        self._held = []
        self._look_again_at = 0
        return text

    def _decode(self, token_ids: list[int]) -> str:
        if not token_ids:
            return ""
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def _decoder_kinds(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Types of the decoders that a fast tokenizer applies in turn; none for others."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None:
        return []
    # The state of a decoder is its JSON; its class does not say what a sequence is made of.
    decoder = json.loads(backend.decoder.__getstate__())
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return [part["type"] for part in parts]


def _text_token(tokenizer: "PreTrainedTokenizerBase", special: frozenset[int], token_id: int) -> str | None:
    """A token as the vocabulary has it; None for special tokens and for ids of no token, which are no text."""
    token: Any = None if token_id in special else tokenizer.convert_ids_to_tokens(token_id)
    return token


def _special_ids(tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """What `skip_special_tokens` leaves out."""
    added = tokenizer.added_tokens_decoder
    return frozenset(token_id for token_id, token in added.items() if token.special)


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for the 256 bytes in byte-level BPE, as GPT-2 chose them."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + rank): byte for rank, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _token_bytes(token: str) -> bytes:
    """Added tokens may be written in plain text; one character that is no byte's makes the whole token so."""
    try:
        return bytes(_ALPHABET[character] for character in token)
    except KeyError:
        return token.encode()
