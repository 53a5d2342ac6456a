"""Lay one source of settings over another.

Sections merge key by key and lists replace. In a plugin section, naming another plugin drops the options of the former
one; not naming any goes on with it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmkit.config.changes import Change
from llmkit.config.problems import Problems
from llmkit.config.section import PluginKind, Section
from llmkit.config.shape import Slot, chosen_name, default_at, slot_at
from llmkit.config.tree import DEFAULT, KeyPath, Node, dotted, from_plain, wrap

REFERENCE_START = "${"


class ImpossibleChangeError(Exception):
    """A change that the settings below it do not allow; the message says why."""


def merge(lower: Node, upper: Node, slot: Slot | None) -> Node:
    """`upper` over `lower`; `slot` is what the schema has here, None when it has nothing."""
    if slot is not None and slot.kind is not None and slot.is_plugin:
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


def apply_changes(settings: Node, changes: Sequence[Change], schema: type[Section], problems: Problems) -> Node:
    """Apply the changes of one layer in order; those that choose plugins go before those that set their options.

    A change of a list's item that is not there, or a reset of an item, goes to `problems`.
    """
    for change in sorted(changes, key=lambda change: not _chooses(change, schema)):
        try:
            settings = _apply(settings, change, schema)
        except ImpossibleChangeError as error:
            problems.add(change.path, change.origin, str(error))
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
    if any(part.isdecimal() for part in change.path):
        return False  # an item can be changed only after the list was set
    is_name = change.path[-1:] == ("name",)
    return _is_plugin(schema, change.path) or (is_name and _is_plugin(schema, change.path[:-1]))


def _apply(settings: Node, change: Change, schema: type[Section]) -> Node:
    if change.node is None:
        return _reset(settings, change, schema)
    return _assign(settings, (), settings, change, schema)


def _assign(settings: Node, prefix: KeyPath, node: Node, change: Change, schema: type[Section]) -> Node:
    """`node`, which lies at `prefix`, with the value of the change put into it."""
    assert change.node is not None
    path = change.path[len(prefix) :]
    for depth, part in enumerate(path):
        place = (*prefix, *path[:depth])
        holder = _list_at(settings, place, schema) if part.isdecimal() else None
        if holder is not None:
            item = _item(holder, part, place)
            changed = _assign(settings, (*place, part), item, change, schema)
            return _put(node, path[:depth], holder.with_child(part, changed))
    return merge(node, wrap(path, change.node), slot_at(schema, prefix, settings))


def _list_at(settings: Node, path: KeyPath, schema: type[Section]) -> Node | None:
    """The list at a path, set or by default; None when there is something else."""
    node = settings.find(path)
    if node is None:
        default: Any = default_at(schema, path, settings)
        node = from_plain(default, DEFAULT) if isinstance(default, list | tuple) else None
    return node if node is not None and node.is_list else None


def _item(holder: Node, index: str, path: KeyPath) -> Node:
    item = holder.child(index)
    if item is None:
        size = len(holder.value)
        way_out = f"the last index is {size - 1}" if size else f"set the whole list: {dotted(path)}=[...]"
        raise ImpossibleChangeError(f"{dotted(path)} has {size} items; {way_out}")
    return item


def _put(node: Node, path: KeyPath, new: Node) -> Node:
    """`node` with `new` at a path, whatever stood there."""
    if not path:
        return new
    node = as_plugin_section(node)
    if not (node.is_section or node.is_list):
        node = Node({}, new.origin, new.origin)
    child = node.child(path[0]) or Node({}, new.origin, new.origin)
    return node.with_child(path[0], _put(child, path[1:], new))


def _reset(settings: Node, change: Change, schema: type[Section]) -> Node:
    path = change.path
    if any(part.isdecimal() and _list_at(settings, path[:depth], schema) for depth, part in enumerate(path)):
        raise ImpossibleChangeError("an item of a list has no default; reset the list or set the item")
    if path[-1] == "name" and _is_plugin(schema, path[:-1], settings):
        path = path[:-1]  # options without the name that they belong to would go to another plugin
    return _without(settings, path)


def _without(node: Node, path: KeyPath) -> Node:
    child = node.child(path[0]) if node.is_section else None
    if child is None:
        return node
    return node.with_child(path[0], _without(child, path[1:]) if len(path) > 1 else None)


def _is_plugin(schema: type[Section], path: KeyPath, settings: Node | None = None) -> bool:
    slot = slot_at(schema, path, settings) if path else None
    return slot is not None and slot.is_plugin
