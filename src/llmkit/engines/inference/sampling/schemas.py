"""Structures in the words of llguidance, and its complaints with the place that they are about."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llmkit.engines.inference.sampling.closing import closed
from llmkit.engines.inference.sampling.grammar import to_lark
from llmkit.errors import RequestError
from llmkit.types import Structure

ITEM_SEPARATOR, KEY_SEPARATOR = ", ?", ": ?"
"""All the blanks that JSON gets, on one line: a weak model that may write more does so until it is cut off."""
MAX_FREE_DEPTH = 16
"""How deep JSON may be that has no schema: a weak model opens bracket after bracket until it is cut off."""
SCALARS, NESTING = ("string", "number", "boolean", "null"), ("array", "object")
MAX_SUBSCHEMAS = 200
"""Parts of a schema that are tried one by one when it is refused."""


@dataclass(frozen=True)
class Source:
    """A grammar for llguidance.

    Attributes:
        text: the grammar.
        explain: an error message of ours from one of llguidance's.
    """

    text: str
    explain: Callable[[str], str]


def source_of(structure: Structure) -> Source:
    """Translate a structure.

    Raises:
        RequestError: its text cannot be read; with the place.
    """
    return {"json": _json, "json_schema": _json_schema, "regex": _regex, "grammar": _grammar, "choice": _choice}[
        structure.kind
    ](structure.text)


def _json(text: str) -> Source:
    return Source(_from_schema(_free({})), lambda problem: f"json: {problem}")


def _json_schema(text: str) -> Source:
    schema = _parsed(text, "json_schema")
    if not isinstance(schema, dict | bool):
        raise RequestError(f"json_schema: a schema is an object, not {text[:60]}")
    return Source(_from_schema(_free(schema)), lambda problem: f"json_schema: {_place(schema, problem)}: {problem}")


def _regex(text: str) -> Source:
    from llguidance import LLMatcher

    # The whole text has to match; anchors that say so are welcome.
    bare = re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1", text.removeprefix("^"))
    return Source(LLMatcher.grammar_from_regex(bare), lambda problem: f"regex {text!r}: {_regex_problem(problem)}")


def _grammar(text: str) -> Source:
    from llguidance import LLMatcher

    return Source(LLMatcher.grammar_from_lark(to_lark(text)), lambda problem: f"grammar: {problem}")


def _choice(text: str) -> Source:
    from llguidance import LLMatcher

    choices = _parsed(text, "choice")
    if not isinstance(choices, list) or not choices or not all(isinstance(c, str) and c for c in choices):
        raise RequestError(f"choice: give a JSON list of strings that are not empty, not {text[:60]}")
    # Escaped by number: no character means anything then.
    escaped = ("".join(f"\\x{{{ord(character):x}}}" for character in choice) for choice in dict.fromkeys(choices))
    return Source(LLMatcher.grammar_from_regex("|".join(escaped)), lambda problem: f"choice: {problem}")


def _parsed(text: str, kind: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError(f"{kind}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise RequestError(f"{kind}: nested too deeply") from None


def _free(schema: Any) -> Any:
    """A schema that asks for any value, or any object, with a bound on how deep it may be; others as they are."""
    if schema not in ({}, True, {"type": "object"}):
        return schema
    levels: dict[str, Any] = {"level0": {"type": SCALARS}}
    for level in range(1, MAX_FREE_DEPTH):
        below = {"$ref": f"#/$defs/level{level - 1}"}
        levels[f"level{level}"] = {"type": [*SCALARS, *NESTING], "items": below, "additionalProperties": below}
    top = {"$ref": f"#/$defs/level{MAX_FREE_DEPTH - 1}"}
    kinds = ["object"] if schema == {"type": "object"} else [*SCALARS, *NESTING]
    return {"type": kinds, "items": top, "additionalProperties": top, "$defs": levels}


def _from_schema(schema: Any) -> str:
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(
        json.dumps(closed(schema)),
        overrides={
            "whitespace_flexible": False,
            "item_separator": ITEM_SEPARATOR,
            "key_separator": KEY_SEPARATOR,
        },
    )


def _regex_problem(problem: str) -> str:
    """From a message that shows the expression with a caret below what is wrong."""
    reason = re.search(r"^error: (.*)$", problem, re.MULTILINE)
    caret = re.search(r"^ {4}( *)\^", problem, re.MULTILINE)
    if reason is None:
        return problem
    return f"column {len(caret[1]) + 1}: {reason[1]}" if caret is not None else reason[1]


def _place(schema: Any, problem: str) -> str:
    """JSON pointer of the smallest part of a schema that is refused for the same reason on its own."""
    from llguidance import LLMatcher

    place = "#"
    for _, (pointer, part) in zip(range(MAX_SUBSCHEMAS), _parts(schema, "#"), strict=False):
        if pointer.startswith(place):
            # The same complaint, if any, in the words of the compiler, which may say more than the check.
            complaint = LLMatcher.validate_grammar(_from_schema(part))
            if complaint and (complaint in problem or problem in complaint):
                place = pointer
    return place


def _parts(schema: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """Objects within an object, outer ones before inner ones."""
    children = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for key, child in children:
        below = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"
        if isinstance(child, dict):
            yield below, child
        yield from _parts(child, below)
