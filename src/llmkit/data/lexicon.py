"""Tokenize by looking up words: the ids of a word that was seen before need no tokenizer.

Byte-level BPE cuts a text into words by a regular expression and encodes each word for itself. Cutting in Python's `re`
and remembering the words takes about a quarter of the time of the tokenizer itself. It is done for ASCII text alone,
where both kinds of regular expressions mean the same, and for tokenizers that are found to work in this way.
"""

import json
import re
import string
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

from tokenizers import Tokenizer

from llmkit.data.word_patterns import leaves_ascii, word_patterns

MAX_WORDS = 100_000
"""Words to remember, some 350 bytes each; then it forgets them and begins anew."""
MAX_WORD_LENGTH = 64
"""Longer ones are not remembered."""
SHORT = 16
"""Texts of at most so many characters are remembered as a whole: what a template writes between messages."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Python takes some of these for white space."""
PROBE = (
    "Hello  world, it's 2024's  \n\n \t day-light isn't\r\n\r\n  I'LL we've 12345 67 x1y2 (a+b)*c\n}\n"
    '  {"k": [1, 2.5]}   \n trailing   '
    + "".join(f"{a}{b}" for a in string.printable[:95] for b in " aZ9'.\n")
    + "\n\n\n  "
)


Entry = tuple[tuple[int, ...], tuple[int, ...]]
"""The ids of a word, and for each the number of characters that it stands for."""


class Words(dict[str, Entry]):
    """Words and short texts that were encoded before."""

    def __init__(self, backend: Tokenizer) -> None:
        super().__init__()
        self._backend = backend

    def __missing__(self, word: str) -> Entry:
        encoding = self._backend.encode(word, add_special_tokens=False)
        entry = tuple(encoding.ids), tuple(end - start for start, end in encoding.offsets)
        if len(word) <= MAX_WORD_LENGTH:
            if len(self) >= MAX_WORDS:
                self.clear()
            self[word] = entry
        return entry


class Lexicon:
    """The words of a tokenizer; `open_lexicon` makes one."""

    def __init__(self, backend: Tokenizer, added: Sequence[str], cuts: Sequence[re.Pattern[str]]) -> None:
        """
        Args:
            backend: encodes new words.
            added: the tokens that are taken out of a text before it is cut into words.
            cuts: regular expressions for words, each applied to what the one before it gave.
        """
        self._added = frozenset(filter(None, added))
        longest_first = sorted(self._added, key=len, reverse=True)
        self._added_pattern = re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")
        self._cuts = cuts
        self._words = Words(backend)

    def split(self, text: str) -> list[str]:
        """Text, added token, text, ... , text."""
        return self._added_pattern.split(text)

    def knows(self, piece: str) -> bool:
        """Whether it can encode this text or added token."""
        return (piece.isascii() and not CONTROL.search(piece)) or piece in self._added

    def encode(self, pieces: Iterable[str], start: int = 0) -> tuple[list[int], list[int]]:
        """Token ids, and where each token ends when the first of the pieces, texts and added tokens, begins at `start`.

        Every token begins where the one before it ends.
        """
        words = self._words
        entries: list[Entry] = []
        for piece in pieces:
            if len(piece) <= SHORT or piece in self._added:
                entries.append(words[piece])
            else:
                entries += [words[word] for word in self._cut(piece)]
        ids = list(chain.from_iterable([ids for ids, _ in entries]))
        ends = list(accumulate(chain.from_iterable([lengths for _, lengths in entries]), initial=start))
        return ids, ends[1:]

    def _cut(self, text: str) -> list[str]:
        """The words of a text."""
        if len(self._cuts) == 1:
            words = self._cuts[0].findall(text)
            if sum(map(len, words)) == len(text):
                return words
        words = [text]
        for cut in self._cuts:
            words = [word for piece in words for word in cut.split(piece) if word]
        return words


def open_lexicon(backend: Tokenizer) -> Lexicon | None:
    """The lexicon of a tokenizer; None when it does not cut texts into words that it encodes each for itself."""
    settings = json.loads(backend.to_str())
    added = settings.get("added_tokens") or []
    kinds = {bool(token["normalized"]) for token in added}
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added) or len(kinds) > 1:
        return None
    model = settings["model"]
    if model.get("type") != "BPE" or model.get("dropout") or not leaves_ascii(settings.get("normalizer")):
        return None
    cuts = word_patterns(settings.get("pre_tokenizer"))
    if cuts is None:
        return None
    lexicon = Lexicon(backend, [token["content"] for token in added], cuts)
    return lexicon if _agrees(lexicon, backend) else None


def _agrees(lexicon: Lexicon, backend: Tokenizer) -> bool:
    """Whether texts that have everything give the tokenizer's own tokens."""
    encoding = backend.encode(PROBE, add_special_tokens=False)
    ids, ends = lexicon.encode(lexicon.split(PROBE))
    return ids == encoding.ids and list(zip([0, *ends], ends, strict=False)) == encoding.offsets
