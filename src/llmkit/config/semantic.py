"""The part of a configuration that decides what is computed: its hash, and how two of them differ."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmkit.config.section import Section
from llmkit.config.shape import Slot, is_nonsemantic, is_secret
from llmkit.config.tree import DEFAULT, KeyPath, dotted, from_plain


def semantic_hash(tree: Mapping[str, Any], schema: type[Section]) -> str:
    """SHA-256, in hexadecimal, of everything that decides what is computed, in canonical JSON.

    Fields marked `Nonsemantic` and secrets are left out.
    """
    canonical = json.dumps(_semantic(tree, schema), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def semantic_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], schema: type[Section]
) -> list[tuple[str, Any, Any]]:
    """Keys whose values differ between two configurations and decide what is computed.

    Args:
        old: a whole configuration as plain values; masks do no harm, as secrets are left out.
        new: the other.
        schema: schema of the command, or of one of the two runs.
    Returns: (key, old value, new value), sorted by key; None stands for a key that is not there.
    """
    before, after = _semantic(old, schema), _semantic(new, schema)
    return [
        (key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if json.dumps(before.get(key)) != json.dumps(after.get(key))
    ]


def _semantic(tree: Mapping[str, Any], schema: type[Section]) -> dict[str, Any]:
    return {dotted(path): value for path, value in _leaves(tree, Slot(schema), ())}


def _leaves(value: Any, slot: Slot | None, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if slot is not None and (is_secret(slot.annotation) or (slot.field is not None and is_nonsemantic(slot.field))):
        return
    if isinstance(value, Mapping) and value:
        node = from_plain(value, DEFAULT)
        for key, child in value.items():
            yield from _leaves(child, slot.child(str(key), node) if slot is not None else None, (*path, str(key)))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, slot.child(str(index)) if slot is not None else None, (*path, str(index)))
    else:
        yield path, list(value) if isinstance(value, tuple) else value
