"""Lay one source of settings over another.

Sections merge key by key and lists replace. In a plugin section, naming another plugin drops the options of the former
one; not naming any goes on with it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmkit.config.changes import Change
from llmkit.config.section import PluginKind, Section
from llmkit.config.shape import MISSING, Slot, chosen_name, default_at, slot_at
from llmkit.config.tree import DEFAULT, KeyPath, Node, Origin, dotted, from_plain, wrap
from llmkit.errors import ConfigError

REFERENCE_START = "${"


def merge(lower: Node, upper: Node, slot: Slot | None) -> Node:
    """`upper` over `lower`; `slot` is what the schema has here, None when it has nothing."""
    if slot is not None and slot.kind is not None and not lower.is_list and not upper.is_list:
        lower, upper = as_plugin_section(lower), as_plugin_section(upper)
        if upper.is_section and lower.is_section and _chooses_another(lower, upper, slot.kind):
            return upper
    if not (lower.is_section and upper.is_section):
        return upper
    entries = dict(lower.value)
    for key, node in upper.value.items():
        inner = slot.child(key, _named(lower, upper)) if slot is not None else None
        entries[key] = merge(entries[key], node, inner) if key in entries else node
    return replace(upper, value=entries)


def apply_changes(settings: Node, changes: Sequence[Change], schema: type[Section]) -> Node:
    """Apply the changes of one layer in order; those that choose plugins go before those that set their options.

    Raises:
        ConfigError: an index has no list, or lies beyond its end; every such fault is told.
    """
    problems: list[str] = []
    for change in sorted(changes, key=lambda change: not _chooses(change, schema)):
        try:
            settings = _apply(settings, change, schema)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def as_plugin_section(node: Node) -> Node:
    """`native` as `{name: native}`; anything else, and a reference such as `${engine}`, as it is."""
    if not isinstance(node.value, str) or (node.value.startswith(REFERENCE_START) and not is_environment(node.value)):
        return node
    return Node({"name": Node(node.value, node.origin, node.key)}, node.origin, node.key)


def is_environment(text: str) -> bool:
    """Whether a reference asks for an environment variable."""
    return text.startswith("${env:")


def _chooses_another(lower: Node, upper: Node, kind: PluginKind) -> bool:
    """Whether `upper` names a plugin other than the one whose options `lower` holds."""
    if "name" not in upper.value:
        return False
    former = chosen_name(lower, kind)
    return former is not None and former != upper.value["name"].value


def _named(lower: Node, upper: Node) -> Node:
    """The one of the two that says which plugin is meant."""
    return upper if upper.is_section and "name" in upper.value else lower


def _chooses(change: Change, schema: type[Section]) -> bool:
    """Whether the change names a plugin, or resets the section of one."""
    for path in (change.path, change.path[:-1] if change.path[-1:] == ("name",) else ()):
        slot = slot_at(schema, path) if path else None
        if slot is not None and slot.kind is not None:
            return True
    return False


def _apply(settings: Node, change: Change, schema: type[Section]) -> Node:
    if change.node is None:
        return _reset(settings, change, schema)
    for depth, part in enumerate(change.path):
        holder = _list_at(settings, change.path[:depth], schema) if part.isdecimal() else None
        if holder is not None:
            return _apply_to_item(settings, holder, change, depth, schema)
    return merge(settings, wrap(change.path, change.node), Slot(schema))


def _list_at(settings: Node, path: KeyPath, schema: type[Section]) -> Node | None:
    """The list at a path, set or by default; None when there is something else."""
    node = settings.find(path)
    if node is None:
        default: Any = default_at(schema, path, settings)
        node = from_plain(default, DEFAULT) if default is not MISSING else None
    return node if node is not None and node.is_list else None


def _apply_to_item(settings: Node, holder: Node, change: Change, depth: int, schema: type[Section]) -> Node:
    """Change one item of a list (or what is in it), and leave the others."""
    assert change.node is not None
    path, index, rest = change.path[:depth], change.path[depth], change.path[depth + 1 :]
    item = holder.child(index)
    if item is None:
        size = len(holder.value)
        way_out = f"its last index is {size - 1}" if size else "set the whole list"
        raise ConfigError(f"{place_of(change.origin)}: {dotted(path)} has {size} items; {way_out}")
    slot = slot_at(schema, (*path, index), settings)
    inner = Node({"item": item}, item.origin)
    section = _Item(slot)
    for further, part in enumerate(rest):
        deeper = item.find(rest[:further])
        if part.isdecimal() and deeper is not None and deeper.is_list:
            nested = replace(change, path=("item", *rest))
            changed = _apply_to_item(inner, deeper, nested, further + 1, schema)
            return _put(settings, path, holder.with_child(index, changed.value["item"]))
    changed_item = merge(item, wrap(rest, change.node), section.slot)
    return _put(settings, path, holder.with_child(index, changed_item))
