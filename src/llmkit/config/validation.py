"""Validate settings against a concrete schema and tell every error at the place where the value was written."""

import json
import re
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from pydantic import SecretStr, ValidationError

from llmkit.config.docs import choices
from llmkit.config.masking import MASK
from llmkit.config.problems import Problems
from llmkit.config.section import Section
from llmkit.config.shape import Slot, is_secret, members, slot_at
from llmkit.config.suggestions import suggest_key
from llmkit.config.tree import KeyPath, Node, Origin, dotted, leaves, plain
from llmkit.config.wording import wrong_value

PATH_IN_TEXT = re.compile(r"[a-z_][a-z0-9_]*(?:\.[a-z0-9_]+)+")


def validate(schema: type[Section], settings: Node, problems: Problems) -> Section | None:
    """The run, or None when something is wrong; what is wrong goes to `problems`.

    Values are read strictly: a number in quotes is not a number.
    """
    try:
        return schema.model_validate_json(json.dumps(plain(settings)), strict=True)
    except ValidationError as error:
        _tell(error, schema, settings, problems)
        return None


def as_typed(settings: Node, schema: type[Section]) -> Node:
    """Settings in which whatever was typed in a shell and belongs into a text field is text: `--set revision=1e5`."""
    return _typed(settings, Slot(schema))


def refuse_masked(settings: Node, schema: type[Section], problems: Problems) -> None:
    """A mask in place of a secret is a problem: the file that has it cannot give the secret back."""
    for path, node in leaves(settings):
        slot = slot_at(schema, path)
        if node.value == MASK and slot is not None and is_secret(slot.annotation):
            way_out = f"give it again with --set '{dotted(path)}=${{env:NAME}}' or in another file"
            problems.add(path, node.origin, f"the value was masked when this was written; {way_out}")


def _typed(node: Node, slot: Slot | None) -> Node:
    if slot is None:
        return node
    if node.is_section:
        return replace(node, value={key: _typed(child, slot.child(key)) for key, child in node.value.items()})
    if node.is_list:
        items = (_typed(item, slot.child(str(index))) for index, item in enumerate(node.value))
        return replace(node, value=tuple(items))
    if node.origin.plain and _wants_text(slot.annotation, node):
        return replace(node, value=node.origin.text)
    return node


def _wants_text(annotation: Any, node: Node) -> bool:
    """Whether a type takes the text of a value and not the number or boolean that it looks like."""
    if isinstance(node.value, str) or node.value is None:
        return False
    types = [member for member in members(annotation) if isinstance(member, type)]
    takes_text = any(issubclass(member, str | SecretStr | PurePath) for member in types)
    takes_value = any(member in types for member in ((bool,) if isinstance(node.value, bool) else (int, float)))
    return (takes_text and not takes_value) or node.origin.text in choices(annotation)


def _tell(error: ValidationError, schema: type[Section], settings: Node, problems: Problems) -> None:
    grouped: dict[KeyPath, list[Any]] = {}
    for item in error.errors(include_url=False):
        grouped.setdefault(_path(item, schema, settings), []).append(item)
    for path, items in grouped.items():
        node = settings.find(path)
        if items[0]["type"] == "too_short" and any(path == other[: len(path)] != other for other in grouped):
            continue  # pydantic does not count items that are wrong themselves
        if items[0]["type"] == "extra_forbidden":
            origin = _key_place(path, node, schema)
            problems.add(path, origin, f"unknown key. {_unknown_key(path, node, schema)}")
        elif items[0]["type"] == "missing" and node is None:
            holder = settings.find(path[:-1])
            origin = holder.origin if holder is not None and holder.origin.layer != "default" else None
            problems.add(path, origin, f"not set, and it has no default; for example --set {dotted(path)}=VALUE")
        elif (slot := slot_at(schema, path)) is not None:
            text = wrong_value(items, slot, node)
            problems.add(path, _written(node, settings, text), text)


def _path(item: Any, schema: type[Section], settings: Node) -> KeyPath:
    """The path of an error: what pydantic adds for alternatives of a type is no part of it."""
    slot, node = Slot(schema), settings
    path: list[str] = []
    for part in map(str, item["loc"]):
        deeper = slot.child(part)
        if deeper is None:
            return (*path, part) if item["type"] == "extra_forbidden" else tuple(path)
        inside = node.child(part) if node is not None else None
        if inside is None and slot.section() is None:
            return tuple(path)  # the name of an alternative, or an item that a list of fixed length lacks
        path.append(part)
        slot, node = deeper, inside
    return tuple(path)


def _unknown_key(path: KeyPath, node: Node | None, schema: type[Section]) -> str:
    """What an unknown key may have meant; of an unknown section, where its keys live."""
    text = suggest_key(schema, path)
    if node is None or not node.is_section or not text.startswith("Keys "):
        return text
    inner = [suggest_key(schema, (*path, key)) for key in list(node.value)[:3]]
    return " ".join(dict.fromkeys(hint for hint in inner if "lives at" in hint)) or text


def _key_place(path: KeyPath, node: Node | None, schema: type[Section]) -> Origin | None:
    """Where a key was written; without the value where that may be a secret under a mistyped name."""
    if node is None:
        return None
    origin = node.key or node.origin
    parent = slot_at(schema, path[:-1])
    has_secrets = parent is not None and any(is_secret(slot.annotation) for _, slot in parent.children())
    return replace(origin, text="") if has_secrets else origin


def _written(node: Node | None, settings: Node, text: str) -> Origin | None:
    """Where a value was written; for a rule about several keys, the place of the first that is named and was set."""
    if node is not None and node is not settings and not (node.is_section and node.origin.layer != "set"):
        return node.origin if node.origin.layer != "default" else None
    for name in PATH_IN_TEXT.findall(text):
        named = settings.find(name.split("."))
        if named is not None and named.origin.layer != "default":
            return named.origin
    return None
