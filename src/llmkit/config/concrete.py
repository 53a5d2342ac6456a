"""The schema of one run: every plugin section replaced by the section of the plugin that is chosen."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, create_model

from llmkit.config.merging import as_plugin_section
from llmkit.config.problems import Problems
from llmkit.config.section import PluginKind, Section
from llmkit.config.shape import Slot, item_type, members, plugin_kind, plugin_model, section_type
from llmkit.config.tree import DEFAULT, KeyPath, Node, dotted
from llmkit.errors import PluginError


def _refuse(value: Any) -> Any:
    raise ValueError("what is wrong with the choice of the plugin has been told")


Unusable = Annotated[Any, AfterValidator(_refuse)]
"""Stands where a plugin cannot be had: nothing fits, so that no rule across sections runs on half a configuration."""


@dataclass
class Concrete:
    """A schema without plugin marks, and the settings in the form that it reads.

    Attributes:
        schema: a subclass of the run's schema.
        settings: the settings with `native` written out as `{name: native}` and default plugins named.
    """

    schema: type[Section]
    settings: Node


def concretize(schema: type[Section], settings: Node, problems: Problems) -> Concrete:
    """Put the chosen plugins into a schema; a plugin that cannot be had goes to `problems`."""
    concrete, node = _section(schema, settings, (), problems)
    assert node is not None
    return Concrete(concrete, node)


def _section(
    schema: type[Section], node: Node | None, path: KeyPath, problems: Problems
) -> tuple[type[Section], Node | None]:
    fields: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        slot = Slot(field.annotation, plugin_kind(field), field)
        child = node.child(name) if node is not None and node.is_section else None
        annotation, changed = _place(slot, child, (*path, name), problems, node)
        if annotation is not field.annotation:
            fields[name] = _field(annotation, slot)
        if changed is not child and changed is not None:
            node = (node or Node({}, DEFAULT)).with_child(name, changed)
    if not fields:
        return schema, node
    return create_model(
        schema.__name__, __base__=schema, __module__=schema.__module__, __doc__=schema.__doc__, **fields
    ), node


def _place(
    slot: Slot, node: Node | None, path: KeyPath, problems: Problems, holder: Node | None
) -> tuple[Any, Node | None]:
    """Type and settings of one place; `holder` is the section or list that it lies in."""
    if slot.kind is not None and slot.is_plugin:
        return _plugin(slot, slot.kind, node, path, problems, holder)
    if section_type(item_type(slot.annotation, "0")) is not None:
        return _items(slot, node, path, problems)
    section = section_type(slot.annotation)
    is_absent = node is None and type(None) in members(slot.annotation)
    if section is None or is_absent or (node is not None and not node.is_section):
        return slot.annotation, node
    concrete, node = _section(section, node, path, problems)
    return (slot.annotation if concrete is section else concrete), node


def _items(slot: Slot, node: Node | None, path: KeyPath, problems: Problems) -> tuple[Any, Node | None]:
    """Type and settings of a list of plugins, or of sections that hold some: one type for each item."""
    if node is None or not node.is_list or not node.value:
        return slot.annotation, node
    item = Slot(item_type(slot.annotation, "0"), slot.kind, slot.field)
    places = [
        _place(item, child, (*path, str(index)), problems, node) for index, child in enumerate(node.value)
    ]  # fmt: skip
    if all(annotation is item.annotation for annotation, _ in places):
        return slot.annotation, node
    items = tuple(child for _, child in places)
    return tuple[tuple(annotation for annotation, _ in places)], Node(items, node.origin, node.key)


def _plugin(
    slot: Slot, kind: PluginKind, node: Node | None, path: KeyPath, problems: Problems, holder: Node | None
) -> tuple[Any, Node | None]:
    """Type and settings of one plugin's section."""
    is_optional = type(None) in members(slot.annotation)
    if is_optional and (node is None or node.value is None):
        return slot.annotation, node
    section = as_plugin_section(node) if node is not None else Node({}, DEFAULT)
    if not section.is_section:
        problems.add(path, section.origin, f"must be the name of one of {kind.kind}, or a section with a 'name'")
        return Unusable, node
    name = section.child("name")
    if name is None and kind.default is not None:
        name = Node(kind.default, DEFAULT)
        section = Node({"name": name, **section.value}, section.origin, section.key)
    if name is None:
        _tell_unnamed(kind, node, path, problems, holder)
        return Unusable, node
    if not isinstance(name.value, str) or not name.value:
        problems.add((*path, "name"), name.origin, f"must be the name of one of {kind.kind}", scope=path)
        return Unusable, section
    try:
        model, section = _section(plugin_model(kind.kind, name.value), section, path, problems)
    except PluginError as error:
        problems.add((*path, "name"), name.origin, str(error), scope=path)
        return Unusable, section
    return (model | None if is_optional else model), section


def _tell_unnamed(kind: PluginKind, node: Node | None, path: KeyPath, problems: Problems, holder: Node | None) -> None:
    from llmkit import plugins

    installed = ", ".join(plugins.names(kind.kind)) or "none"
    text = f"not set; choose one with --set {dotted(path)}.name=NAME. Installed: {installed}"
    if node is not None:
        problems.add((*path, "name"), node.origin, text, scope=path)
        return
    # The root's place would be that of the first file, which may have nothing to do with it.
    place = holder.origin if holder is not None and len(path) > 1 else DEFAULT
    problems.add(path, place if place.layer != "default" else None, text)


def _field(annotation: Any, slot: Slot) -> tuple[Any, Any]:
    """The field that takes the place of a plugin section, with every other mark that the former had."""
    assert slot.field is not None
    marks = [mark for mark in slot.field.metadata if not isinstance(mark, PluginKind)]
    for mark in marks:
        annotation = Annotated[annotation, mark]
    section = section_type(annotation)
    if slot.field.default is None:
        return annotation, None
    if section is not None:
        return annotation, Field(default_factory=section)
    return annotation, ... if slot.field.is_required() else slot.field.default
