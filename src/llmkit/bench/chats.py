"""Made-up chats: as many as wanted, the same ones every time, with the statistics of real text but no meaning."""

import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

NUM_WORDS = 20_000
SYLLABLES_PER_WORD = (1, 1, 2, 2, 2, 3, 3, 4)
ONSETS = ("", "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "ch", "st", "tr", "pl", "th")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
CODAS = ("", "", "", "n", "r", "s", "t", "l", "nd", "ck")
WORDS_PER_SENTENCE = (5, 16)
SENTENCES = {"system": (1, 2), "user": (1, 4), "assistant": (3, 7)}
TURNS = ("system", "user", "assistant", "user", "assistant")
NUMBERS = 0.03
"""Share of words that are numbers."""
COMMAS = 0.08
ACCENTS = 0.002
"""Share of words with an accent: about a third of the chats then have one, as English ones do."""


def chats(num_rows: int, seed: int = 0, accents: float = ACCENTS) -> Iterator[dict[str, Any]]:
    """Rows with `messages`: a system prompt, then two questions and two answers; some 250 tokens in all.

    Args:
        num_rows: how many.
        seed: other rows for another number.
        accents: share of words that ASCII cannot write. English has few, French many, Chinese no others.
    """
    source = random.Random(seed)
    words = _words(source)
    # Zipf's law: the n-th word of a language is about n times rarer than the first.
    weights = list(accumulate(1 / rank for rank in range(2, len(words) + 2)))
    for _ in range(num_rows):
        yield {"messages": [{"role": role, "content": _text(source, role, words, weights, accents)} for role in TURNS]}


def _words(source: random.Random) -> list[str]:
    """Different pronounceable words, the most frequent ones first and shortest."""
    words: dict[str, None] = {}
    while len(words) < NUM_WORDS:
        size = source.choice(SYLLABLES_PER_WORD)
        word = "".join(source.choice(ONSETS) + source.choice(VOWELS) + source.choice(CODAS) for _ in range(size))
        words[word] = None
    return sorted(words, key=lambda word: len(word) + source.uniform(0, 6))


def _text(source: random.Random, role: str, words: list[str], weights: list[float], accents: float) -> str:
    return " ".join(_sentence(source, words, weights, accents) for _ in range(source.randint(*SENTENCES[role])))


def _sentence(source: random.Random, words: list[str], weights: list[float], accents: float) -> str:
    chosen = source.choices(words, cum_weights=weights, k=source.randint(*WORDS_PER_SENTENCE))
    for index, word in enumerate(chosen):
        chance = source.random()
        if chance < NUMBERS:
            chosen[index] = str(source.randint(0, 9999))
        elif chance < NUMBERS + COMMAS and index < len(chosen) - 1:
            chosen[index] = word + ","
        elif chance > 1 - accents:
            chosen[index] = word + "é"
    return " ".join(chosen).capitalize() + source.choice(".....?!:")
