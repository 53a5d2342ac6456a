"""Single tokens as text and as bytes, for log-probabilities."""

from functools import cached_property

from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TokenTexts:
    """Text and bytes of each token of a vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, bytes]] = {}

    def text(self, token_id: int) -> str:
        """What the token stands for; part of a character is spelled in bytes: `bytes:\\xe2\\x82`."""
        return self._look_up(token_id)[0]

    def utf8(self, token_id: int) -> bytes:
        """The bytes that the token adds."""
        return self._look_up(token_id)[1]

    def _look_up(self, token_id: int) -> tuple[str, bytes]:
        if token_id not in self._known:
            self._known[token_id] = self._read(token_id)
        return self._known[token_id]

    def _read(self, token_id: int) -> tuple[str, bytes]:
        text = str(self._tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if REPLACEMENT not in text:
            return text, text.encode()
        raw = self._raw_bytes(token_id)
        if raw is None:
            return text, text.encode()
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), raw

    def _raw_bytes(self, token_id: int) -> bytes | None:
        """The bytes of a token that is no whole character: of byte-level BPE, or of byte fallback (`<0xE2>`)."""
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if not isinstance(piece, str):
            return None
        if len(piece) == 6 and piece.startswith("<0x"):
            return bytes([int(piece[3:5], 16)])
        if all(character in self._byte_of for character in piece):
            return bytes(self._byte_of[character] for character in piece)
        return None

    @cached_property
    def _byte_of(self) -> dict[str, int]:
        """The characters that byte-level BPE writes bytes with: printable ones stand for themselves, the others for
        the characters from 256 on (Radford et al. 2019, the code of GPT-2)."""
        printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        others = [byte for byte in range(256) if byte not in printable]
        return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
