"""How a tokenizer cuts ASCII text into words, as Python's regular expressions."""

import re
import warnings
from typing import Any

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How `ByteLevel` cuts by itself."""
ASCII_CLASSES = {
    "L": "a-zA-Z",
    "Ll": "a-z",
    "Lu": "A-Z",
    "Lt": "",
    "Lm": "",
    "Lo": "",
    "M": "",
    "N": "0-9",
    "Nd": "0-9",
    "P": re.escape("!\"#%&'()*,-./:;?@[\\]_{}"),
    "S": re.escape("$+<=>^`|~"),
}
"""The ASCII characters of Unicode's classes."""
UNCHANGING = frozenset({"NFC", "NFD", "NFKC", "NFKD"})
"""Normalizers that leave ASCII as it is."""


def leaves_ascii(normalizer: dict[str, Any] | None) -> bool:
    if normalizer is None:
        return True
    if normalizer["type"] == "Sequence":
        return all(map(leaves_ascii, normalizer["normalizers"]))
    return normalizer["type"] in UNCHANGING


def word_patterns(pre_tokenizer: dict[str, Any] | None) -> list[re.Pattern[str]] | None:
    """How a byte-level pre-tokenizer cuts; None for any other one."""
    if pre_tokenizer is None:
        return None
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    if not steps or steps[-1]["type"] != "ByteLevel":
        return None
    patterns = [_pattern(step) for step in steps]
    if None in patterns:
        return None
    compiled = [_compile(pattern) for pattern in patterns if pattern]
    return None if not compiled or None in compiled else [cut for cut in compiled if cut is not None]


def _pattern(step: dict[str, Any]) -> str | None:
    """The regular expression by which a step cuts; empty when it does not, None when it does in another way."""
    if step["type"] == "ByteLevel":
        return None if step["add_prefix_space"] else GPT2 if step["use_regex"] else ""
    if step["type"] == "Digits":
        return r"\p{N}" if step["individual_digits"] else r"\p{N}+"
    if step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        pattern = step["pattern"]
        return pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])
    return None


def _compile(pattern: str) -> re.Pattern[str] | None:
    """The regular expression in Python's words, for ASCII text; None when it has no such form."""
    translated: list[str] = []
    in_brackets = False
    for piece in re.split(r"(\\[pP]\{\w+\}|\\.|\[|\])", pattern, flags=re.DOTALL):
        if unicode_class := re.fullmatch(r"\\(p|P)\{(\w+)\}", piece):
            characters = ASCII_CLASSES.get(unicode_class[2])
            if characters is None or (unicode_class[1] == "P" and (in_brackets or not characters)):
                return None
            negated = "^" if unicode_class[1] == "P" else ""
            translated.append(characters if in_brackets else f"[{negated}{characters}]" if characters else "(?!)")
            continue
        in_brackets = piece == "[" or (in_brackets and piece != "]")
        translated.append(piece)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # The outer group makes `split` keep what it cuts by.
            compiled = re.compile("(" + "".join(translated) + ")")
    except (re.error, FutureWarning, DeprecationWarning):
        return None
    return compiled if compiled.groups == 1 else None
