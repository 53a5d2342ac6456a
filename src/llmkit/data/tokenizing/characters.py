"""Characters of which every program thinks the same: their Unicode category never changed.

Regular expressions of tokenizers and of Python go by Unicode tables of different years. They agree on the characters
that were there in Unicode 3.2 and have the same category today: most letters, digits and signs of living scripts.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

WHITE_SPACE = "\t\n\r"
"""The control characters that both count as white space. Python counts more."""


@cache
def stable_characters() -> dict[str, str]:
    """The stable characters of each category (`Lu`, `Nd`, ...) of the basic plane, in code-point order."""
    found: dict[str, list[str]] = {}
    for character in map(chr, range(0x10000)):
        category = unicodedata.category(character)
        if category[0] == "C" or category != unicodedata.ucd_3_2_0.category(character):
            continue
        # What equals an ASCII letter when case is ignored may or may not match it.
        if character.isascii() or not character.casefold().isascii() or len(character.casefold()) > 1:
            found.setdefault(category, []).append(character)
    return {category: "".join(characters) for category, characters in found.items()}


@cache
def in_brackets(category: str, *, ascii_only: bool) -> str:
    """What stands for `\\p{category}` between the brackets of Python's regular expressions; empty for none."""
    names = [name for name in stable_characters() if name.startswith(category)]
    characters = (character for name in names for character in stable_characters()[name])
    return _ranges(sorted(character for character in characters if character.isascii() or not ascii_only))


@cache
def unknown_character() -> re.Pattern[str]:
    """Finds a character that is not stable."""
    return re.compile(f"[^{WHITE_SPACE}{_ranges(sorted(''.join(stable_characters().values())))}]")


def _ranges(characters: Iterable[str]) -> str:
    """Sorted characters as ranges, `\\u0041-\\u005a`."""
    ranges: list[list[int]] = []
    for code in map(ord, characters):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in ranges)
