"""What decides the tokens of a data set, as one name."""

import hashlib
import inspect
import json
import pickle
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import llmkit.data
from llmkit.data.contract import Dataset, Encoder, Fingerprinted, Formatter

LIBRARIES = ("jinja2", "tokenizers", "transformers")
"""Packages that turn text into tokens."""
DATA_CODE = Path(llmkit.data.__path__[0])


def cache_key(dataset: Dataset, formatter: Formatter, encoder: Encoder[Any], further: Sequence[Any]) -> str | None:
    """A name that changes with everything that the tokens depend on: rows, options, tokenizer, template, code.

    What happens to faulty rows is not part of it: their errors are kept beside the tokens.

    Args:
        further: what else decides, as JSON can hold it.
    Returns: None when the data set or the formatter cannot be told from another one.
    """
    identity = identify(formatter)
    if identity is None or not isinstance(dataset, Fingerprinted):
        return None
    parts = [
        list(further),
        dataset.fingerprint(),
        identity,
        [_qualified_name(type(encoder)), encoder.fingerprint()],
        _code_fingerprint(DATA_CODE, *_sources_elsewhere(type(formatter), type(encoder))),
        [metadata.version(library) for library in LIBRARIES],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def identify(formatter: Formatter) -> Any:
    """What decides how a formatter reads, as JSON can hold it.

    That is its own `fingerprint()` where it has one, else its class and all its attributes; None when an attribute is
    something that cannot be told from another one, such as an open file.
    """
    if isinstance(formatter, Fingerprinted):
        return [_qualified_name(type(formatter)), formatter.fingerprint()]
    try:
        return _describe(formatter)
    except (TypeError, RecursionError):
        return None


def _describe(value: Any) -> Any:
    """A value with everything in it, as JSON can hold it; equal for equal values in every process.

    It sees what pickle sees, whose own bytes differ between processes for the same value where it holds sets.

    Raises:
        TypeError: it holds something that cannot be pickled.
        RecursionError: it holds itself.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return ["bytes", value.hex()]
        case BaseModel():
            return [_qualified_name(type(value)), value.model_dump(mode="json")]
        case Mapping():
            return ["mapping", [[_describe(key), _describe(item)] for key, item in value.items()]]
        case list() | tuple():
            return ["list", [_describe(item) for item in value]]
        case set() | frozenset():
            return ["set", sorted((_describe(item) for item in value), key=json.dumps)]
        case re.Pattern():
            return ["pattern", _describe(value.pattern), value.flags]
    if isinstance(value, type) or (inspect.isroutine(value) and not inspect.ismethod(value)):
        return _global_name(value)
    reduced = value.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
    if isinstance(reduced, str):
        return [_qualified_name(type(value)), reduced]
    make, arguments, state, *items = (*reduced, None, None, None)[:5]
    return [_describe(part) for part in (make, arguments, state, *(list(part or ()) for part in items))]


def _global_name(value: Any) -> str:
    """The name of a class or function that can be found again by it."""
    if "<" in value.__qualname__:
        raise TypeError(f"{value!r} was made on the way and has no name of its own")
    return _qualified_name(value)


def _qualified_name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _sources_elsewhere(*types: type) -> list[Path]:
    """Source files of classes that are not among ours."""
    found = (inspect.getsourcefile(kind) for kind in types)
    return [path for path in (Path(name) for name in found if name) if not path.is_relative_to(DATA_CODE)]


@cache
def _code_fingerprint(*paths: Path) -> str:
    """The contents of source files, and of all those in directories: other code may give other tokens."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
