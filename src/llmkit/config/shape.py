"""What a schema looks like: which section, plugin or field lies at a path. Builds no validators, so it is quick."""

import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import SecretStr, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llmkit.config.section import Nonsemantic, PluginKind, PluginSection, Section
from llmkit.config.tree import KeyPath, Node
from llmkit.errors import PluginError

MISSING: Any = PydanticUndefined
"""Stands for a default that does not exist."""


def plugin_kind(field: FieldInfo) -> PluginKind | None:
    """The mark of a plugin section, None for any other field."""
    return next((mark for mark in field.metadata if isinstance(mark, PluginKind)), None)


def is_nonsemantic(field: FieldInfo) -> bool:
    """Whether the field never changes what is computed."""
    return Nonsemantic in field.metadata


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a type: of `int | None` both, of anything else itself."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in members(part))
    return (annotation,)


def is_secret(annotation: Any) -> bool:
    """Whether values of this type are masked."""
    return any(isinstance(member, type) and issubclass(member, SecretStr) for member in members(annotation))


def section_type(annotation: Any) -> type[Section] | None:
    """The section that a type is, or may be when it is not null."""
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, Section):
            return member
    return None


def item_type(annotation: Any, part: str) -> Any:
    """The type of a list's item or of a mapping's value; `MISSING` for what holds nothing."""
    for member in members(annotation):
        origin, arguments = get_origin(member), get_args(member)
        if member is Any or member in (list, tuple, dict):
            return Any
        if origin is tuple and Ellipsis not in arguments:
            return arguments[int(part)] if part.isdecimal() and int(part) < len(arguments) else MISSING
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return arguments[1]
        if isinstance(origin, type) and issubclass(origin, Collection) and part.isdecimal():
            return arguments[0]
    return MISSING


def plugin_model(kind: str, name: str) -> type[PluginSection]:
    """The section of one plugin: its own `Config` with the name beside it.

    Raises:
        PluginError: there is no such plugin, it cannot be used, or its `Config` has a field `name`.
    """
    from llmkit import plugins

    return _plugin_model(plugins.load(kind, name).Config, kind, name)


@lru_cache(maxsize=256)
def _plugin_model(config: type[Section], kind: str, name: str) -> type[PluginSection]:
    if "name" in config.model_fields:
        raise PluginError(f"Plugin '{name}' of {kind}: its Config has a field 'name', which chooses the plugin")
    fixed: Any = (Literal[name], name)
    model = create_model(
        f"{name}_{kind}",
        __base__=(PluginSection, config),
        __module__=config.__module__,
        __doc__=config.__doc__,
        name=fixed,
    )
    section = cast(type[PluginSection], model)
    section.plugin_kind = kind
    return section


def chosen_name(node: Node | None, kind: PluginKind) -> str | None:
    """The plugin that a section's node names, or the default one."""
    if node is not None and node.is_section:
        node = node.value.get("name")
    return node.value if node is not None and isinstance(node.value, str) else kind.default


def chosen_model(node: Node | None, kind: PluginKind) -> type[PluginSection] | None:
    """The section of the plugin that a node names; None when there is no such plugin."""
    name = chosen_name(node, kind)
    if name is None:
        return None
    try:
        return plugin_model(kind.kind, name)
    except PluginError:
        return None


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a schema.

    Attributes:
        annotation: the type of what may stand here.
        kind: the mark of a plugin section, or of a list of them.
        field: the field here, or the one that holds this item; None at the root.
    """

    annotation: Any
    kind: PluginKind | None = None
    field: FieldInfo | None = None

    @property
    def is_plugin(self) -> bool:
        """Whether one plugin's section goes here; of a list of plugins, only the items are."""
        return self.kind is not None and section_type(self.annotation) is not None

    def section(self, node: Node | None = None) -> type[Section] | None:
        """The section here; where plugins go, the one that `node` chooses or the default one."""
        section = section_type(self.annotation)
        if section is not None and self.kind is not None:
            return chosen_model(node, self.kind) or section
        return section

    def child(self, part: str, node: Node | None = None) -> "Slot | None":
        """The place under a key or index; None where the schema has none. `node` is what stands here."""
        section = self.section(node)
        if section is not None:
            field = section.model_fields.get(part)
            return Slot(field.annotation, plugin_kind(field), field) if field is not None else None
        item = item_type(self.annotation, part)
        return Slot(item, self.kind, self.field) if item is not MISSING else None

    def children(self) -> Iterator[tuple[str, "Slot"]]:
        """The places inside that have a name of their own."""
        section = self.section()
        if section is not None:
            for name, field in section.model_fields.items():
                yield name, Slot(field.annotation, plugin_kind(field), field)
        elif get_origin(self.annotation) is tuple and Ellipsis not in (items := get_args(self.annotation)):
            for index, item in enumerate(items):
                if section_type(item) is not None:
                    yield str(index), Slot(item, self.kind, self.field)


def slot_at(schema: type[Section], path: Sequence[str], settings: Node | None = None) -> Slot | None:
    """The place at a path; `settings` says which plugins are chosen. None where the schema has none."""
    slot: Slot | None = Slot(schema)
    for part in path:
        slot = slot.child(part, settings) if slot is not None else None
        settings = settings.child(part) if settings is not None else None
    return slot


def walk(slot: Slot, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Slot]]:
    """Every place below a slot with its path, sections before what they hold; plugin sections by their defaults."""
    for name, child in slot.children():
        yield (*path, name), child
        yield from walk(child, (*path, name))


def default_at(schema: type[Section], path: Sequence[str], settings: Node | None = None) -> Any:
    """The default of the value at a path, `MISSING` when it has none."""
    slot = slot_at(schema, path, settings)
    if slot is None or slot.field is None or not path:
        return MISSING
    parent = slot_at(schema, path[:-1], settings)
    if parent is not None and slot.field is parent.field:  # an item of a list or mapping
        holder = default_at(schema, path[:-1], settings)
        return _item(holder, path[-1])
    if slot.field.is_required():
        return MISSING
    return slot.field.get_default(call_default_factory=True)


def _item(holder: Any, part: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(part, MISSING)
    if isinstance(holder, list | tuple) and part.isdecimal() and int(part) < len(holder):
        return holder[int(part)]
    return MISSING
