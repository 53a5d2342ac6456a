"""Validation errors in plain words: what is allowed, and what was given."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.config.docs import annotation_text, choices, limits
from llmkit.config.scalars import read_scalar, write_flow, write_scalar
from llmkit.config.shape import Slot, is_secret, members
from llmkit.config.tree import Node

LONGEST = 80
TRUE_WORDS = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "1": "true",
    "no": "false",
    "off": "false",
    "n": "false",
    "0": "false",
}
LIMIT_TYPES = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "finite_number"}
LENGTH_TYPES = {"too_short", "too_long", "string_too_short", "string_too_long", "string_pattern_mismatch"}


def wrong_value(errors: Sequence[Any], slot: Slot, node: Node | None) -> str:
    """What is wrong with the value of a known key.

    Args:
        errors: what pydantic says about it; several when the type has alternatives.
        slot: the place in the schema.
        node: what was written, None when it was a default.
    """
    kinds = {error["type"] for error in errors}
    first = errors[0]
    got = first["input"] if node is None else _bare(node)
    if "value_error" in kinds:
        error = next(error for error in errors if error["type"] == "value_error")
        return str(error["ctx"]["error"])
    shown = "" if is_secret(slot.annotation) else f", got {describe_value(got)}"
    if kinds & LIMIT_TYPES and (allowed := limits(slot)):
        return f"must be {allowed}{shown}"
    if kinds & {"too_short", "too_long"}:
        return f"must have {_bounds(first['ctx'])}{shown}"
    if kinds <= LIMIT_TYPES | LENGTH_TYPES:
        return f"{_lower(first['msg']).replace('input', 'it').replace('it should', 'should')}{shown}"
    known = choices(slot.annotation)
    if known and kinds & {"literal_error", "enum"}:
        return f"must be {annotation_text(slot.annotation)}{shown}{_suggest_choice(got, known)}"
    if any(kind.endswith(("_type", "_parsing", "_from_float", "missing")) for kind in kinds):
        return f"must be {_with_article(annotation_text(slot.annotation))}{shown}{_hint(got, slot.annotation)}"
    return f"{_lower(first['msg'])}{shown}"


def describe_value(value: Any) -> str:
    """A value as messages show it: `3`, `the text 'abc'`, `a list of 2`."""
    if isinstance(value, str):
        return f"the text {_short(repr(value))}"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return f"a list of {len(value)}" if len(write_flow(value)) > LONGEST else f"the list {write_flow(value)}"
    return write_scalar(value)


def _bounds(context: Mapping[str, Any]) -> str:
    """How many items a list must have."""
    name, word = ("min_length", "at least") if "min_length" in context else ("max_length", "at most")
    return f"{word} {context[name]} item{'' if context[name] == 1 else 's'}"


def _hint(got: Any, annotation: Any) -> str:
    """How the value was probably meant."""
    types = set(members(annotation))
    if isinstance(got, str):
        if bool in types and got.strip().lower() in TRUE_WORDS:
            return f". Write {TRUE_WORDS[got.strip().lower()]}"
        number = read_scalar(got.strip().replace("_", "").replace(",", ""))
        if types & {int, float} and isinstance(number, int | float) and not isinstance(number, bool):
            return f". Write {write_scalar(number)}, without quotes, underscores or commas"
        if types & {bool} and isinstance(number, bool):
            return f". Write {write_scalar(number)} without quotes"
    if isinstance(got, float) and int in types and math.isfinite(got) and got == int(got):
        return f". Write {int(got)}"
    if isinstance(got, int | float | bool) and str in types:
        return ". Put it in quotes"
    if not isinstance(got, list | dict | None) and "list" in annotation_text(annotation):
        return f". Write {write_flow([got])}"
    return ""


def _suggest_choice(got: Any, known: list[Any]) -> str:
    close = difflib.get_close_matches(str(got).lower(), [str(choice) for choice in known], n=1)
    return f". Did you mean '{close[0]}'?" if close else ""


def _with_article(text: str) -> str:
    needs = text.startswith(("number", "whole number", "list", "section"))
    return f"a {text}" if needs else text


def _bare(node: Node) -> Any:
    from llmkit.config.tree import plain

    return plain(node)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
