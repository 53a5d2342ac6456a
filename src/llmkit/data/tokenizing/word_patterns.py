"""How a tokenizer cuts text into words, as Python's regular expressions."""

import re
import warnings
from typing import Any, Literal

from llmkit.data.tokenizing.characters import in_brackets

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How `ByteLevel` cuts by itself."""
NOT_ALIKE = re.compile(r"\\[wWbBdD]")
"""What means other characters in Python, outside ASCII."""
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: dict[str, Form] = {"NFC": "NFC", "NFD": "NFD", "NFKC": "NFKC", "NFKD": "NFKD"}
"""Normalizers that leave a text in their form as it is, such as any ASCII text."""


def normal_forms(normalizer: dict[str, Any] | None) -> list[Form] | None:
    """The forms that a normalizer brings a text into; None when it does something else."""
    if normalizer is None:
        return []
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    names = [step["type"] for step in steps]
    return [FORMS[name] for name in names] if FORMS.keys() >= set(names) else None


def word_patterns(pre_tokenizer: dict[str, Any] | None, *, ascii_only: bool) -> list[re.Pattern[str]] | None:
    """How a byte-level pre-tokenizer cuts text of stable characters; None for any other pre-tokenizer.

    Each regular expression is applied to what the one before it gave, and keeps what it cuts by (`Pattern.split`).
    """
    if pre_tokenizer is None:
        return None
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    if not steps or steps[-1]["type"] != "ByteLevel":
        return None
    patterns = [_pattern(step) for step in steps]
    compiled = [None if pattern is None else _compile(pattern, ascii_only) for pattern in patterns if pattern != ""]
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


def _compile(pattern: str, ascii_only: bool) -> re.Pattern[str] | None:
    """The regular expression in Python's words; None when it has no such form."""
    if not ascii_only and NOT_ALIKE.search(pattern):
        return None
    translated: list[str] = []
    inside = False
    for piece in re.split(r"(\\[pP]\{\w+\}|\\.|\[|\])", pattern, flags=re.DOTALL):
        if unicode_class := re.fullmatch(r"\\(p|P)\{([LMNPSZ][a-z]?)\}", piece):
            characters = in_brackets(unicode_class[2], ascii_only=ascii_only)
            if unicode_class[1] == "P" and (inside or not characters):
                return None
            negated = "^" if unicode_class[1] == "P" else ""
            translated.append(characters if inside else f"[{negated}{characters}]" if characters else "(?!)")
            continue
        if piece.startswith(("\\p", "\\P")):
            return None
        inside = piece == "[" or (inside and piece != "]")
        translated.append(piece)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # The outer group makes `split` keep what it cuts by.
            compiled = re.compile("(" + "".join(translated) + ")")
    except (re.error, FutureWarning, DeprecationWarning):
        return None
    return compiled if compiled.groups == 1 else None
