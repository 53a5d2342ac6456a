"""Tokenize by looking up words: the ids of a word that was seen before need no tokenizer.

Byte-level BPE cuts a text into words by a regular expression and encodes each word for itself. Cutting in Python's `re`
and remembering the words takes a third of the time of the tokenizer itself. It is done for text of characters that both
kinds of regular expressions agree on, and for tokenizers that are found to work in this way.
"""

import json
import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from operator import sub

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from llmkit.data.tokenizing.characters import unknown_character
from llmkit.data.tokenizing.word_patterns import Form, normal_forms, word_patterns

MAX_WORDS = 100_000
"""Words to remember, some 350 bytes each; then it forgets them and begins anew."""
MAX_WORD_LENGTH = 64
"""Longer ones are not remembered."""
SHORT = 16
"""Texts of at most so many characters are remembered as a whole: what a template writes between messages."""
PROBE = (
    "Hello  world, it's 2024's  \n\n \t day-light isn't\r\n\r\n  I'LL we've 12345 67 x1y2 (a+b)*c\n}\n"
    '  {"k": [1, 2.5]}   \n trailing   '
    + "".join(f"{a}{b}" for a in string.printable[:95] for b in " aZ9'.\n")
    + "\n\n\n  "
)
WIDE_PROBE = (
    "Größe naïve “quoted” isn’t — 10 € ½ … Привет, мир! 你好，世界。こんにちは 한국어 ١٢٣ नमस्ते שלום α²  x\n" * 2
)
"""Text of several scripts, in composed form."""


Ints = tuple[int, ...]
Entry = tuple[Ints, Ints, Ints]
"""The ids of a word; for each how much farther it reaches than the one before it; and how many characters it covers."""


class Words(dict[str, Entry]):
    """Words and short texts that were encoded before."""

    def __init__(self, backend: Tokenizer) -> None:
        super().__init__()
        self._backend = backend

    def __missing__(self, word: str) -> Entry:
        encoding = self._backend.encode(word, add_special_tokens=False)
        ends = [end for _, end in encoding.offsets]
        steps = tuple(map(sub, ends, [0, *ends]))
        entry = tuple(encoding.ids), steps, tuple(end - start for start, end in encoding.offsets)
        if len(word) <= MAX_WORD_LENGTH:
            if len(self) >= MAX_WORDS:
                self.clear()
            self[word] = entry
        return entry


@dataclass(frozen=True)
class Cutting:
    """How a tokenizer makes words.

    Attributes:
        added: the tokens that are taken out of a text before it is cut.
        narrow: regular expressions for words of ASCII text, see `word_patterns`.
        wide: the same for other text; None when there are none.
        forms: the normal forms that the text must be in.
    """

    added: frozenset[str]
    narrow: Sequence[re.Pattern[str]]
    wide: Sequence[re.Pattern[str]] | None
    forms: Sequence[Form]


class Lexicon:
    """The words of a tokenizer; `open_lexicon` makes one."""

    def __init__(self, backend: Tokenizer, cutting: Cutting) -> None:
        """
        Args:
            backend: encodes new words.
            cutting: how it makes words.
        """
        self._cutting = cutting
        longest_first = sorted(cutting.added, key=len, reverse=True)
        self._added_pattern = re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")
        self._words = Words(backend)

    def split(self, text: str) -> list[str]:
        """Text, added token, text, ... , text."""
        return self._added_pattern.split(text)

    def knows(self, piece: str) -> bool:
        """Whether it can encode this text or added token."""
        if piece in self._cutting.added:
            return True
        if unknown_character().search(piece):
            return False
        if piece.isascii():
            return True
        normal = all(unicodedata.is_normalized(form, piece) for form in self._cutting.forms)
        return normal and self._cutting.wide is not None

    def encode(self, pieces: Sequence[str], start: int = 0) -> tuple[list[int], list[int], list[int]]:
        """Token ids, and where each token begins and ends when the first of the pieces begins at `start`."""
        words = self._words
        entries: list[Entry] = []
        for piece in pieces:
            if len(piece) <= SHORT or piece in self._cutting.added:
                entries.append(words[piece])
            else:
                entries += [words[word] for word in self._cut(piece)]
        if not entries:
            return [], [], []
        ids, steps, widths = zip(*entries, strict=True)
        bounds = list(accumulate(chain.from_iterable(steps), initial=start))
        ends = bounds[1:]
        # In ASCII text every token begins where the one before it ends.
        is_ascii = all(map(str.isascii, pieces))
        starts = bounds[:-1] if is_ascii else list(map(sub, ends, chain.from_iterable(widths)))
        return list(chain.from_iterable(ids)), starts, ends

    def _cut(self, text: str) -> list[str]:
        """The words of a text."""
        cuts = self._cutting.narrow if text.isascii() else self._cutting.wide
        assert cuts is not None
        if len(cuts) == 1:
            words = cuts[0].findall(text)
            if sum(map(len, words)) == len(text):
                return words
        words = [text]
        for cut in cuts:
            words = [word for piece in words for word in cut.split(piece) if word]
        return words


def open_lexicon(backend: Tokenizer) -> Lexicon | None:
    """The lexicon of a tokenizer; None when it does not cut texts into words that it encodes each for itself."""
    settings = json.loads(backend.to_str())
    added = settings.get("added_tokens") or []
    kinds = {bool(token["normalized"]) for token in added}
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added) or len(kinds) > 1:
        return None
    model, forms = settings["model"], normal_forms(settings.get("normalizer"))
    if model.get("type") != "BPE" or model.get("dropout") or forms is None:
        return None
    if not model["vocab"].keys() >= set(ByteLevel.alphabet()):
        # A byte without a token would be left out, and those after it would seem to be in its place.
        return None
    narrow, wide = (word_patterns(settings.get("pre_tokenizer"), ascii_only=only) for only in (True, False))
    if narrow is None:
        return None
    added = frozenset(token["content"] for token in added if token["content"])
    for offered in (wide, None):
        lexicon = Lexicon(backend, Cutting(added, narrow, offered, forms))
        if _agrees(lexicon, backend):
            return lexicon
    return None


def _agrees(lexicon: Lexicon, backend: Tokenizer) -> bool:
    """Whether texts that have everything give the tokenizer's own tokens."""
    for probe in (PROBE, WIDE_PROBE):
        pieces = lexicon.split(probe)
        if not all(map(lexicon.knows, pieces)):
            continue
        encoding = backend.encode(probe, add_special_tokens=False)
        ids, starts, ends = lexicon.encode(pieces)
        if ids != encoding.ids or list(zip(starts, ends, strict=True)) != encoding.offsets:
            return False
    return True
