"""What settings mean, read from the schemas' source without building any validator."""

import ast
import inspect
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr

from llmkit.config.section import PluginKind, PluginSection, Section
from llmkit.config.shape import MISSING, Slot, default_at, members, section_type, slot_at
from llmkit.config.suggestions import suggest_key
from llmkit.config.tree import KeyPath, Node
from llmkit.errors import ConfigError

TYPE_NAMES = {
    bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null", list: "list",
    tuple: "list", dict: "section",
}  # fmt: skip
LIMIT_WORDS = {"gt": "greater than {}", "ge": "at least {}", "lt": "less than {}", "le": "at most {}"}
LENGTH_WORDS = {"min_length": "at least {} long", "max_length": "at most {} long"}
OTHER_WORDS = {"multiple_of": "a multiple of {}", "pattern": "of the form {}"}


@dataclass(frozen=True)
class FieldDoc:
    """What is known about a key.

    Attributes:
        help: its docstring as one paragraph; empty when it has none.
        default: the default as a plain value (of a plugin section, the plugin's name); None when it is null or there is
            none, as for sections.
        type_text: what may stand there, in words: `number`, `'token' or 'sequence'`.
        limits: `greater than 0 and at most 1`; empty when everything of the type is allowed.
        is_required: whether it must be set.
    """

    help: str
    default: Any
    type_text: str
    limits: str
    is_required: bool = False


def describe(schema: type[Section], path: str) -> FieldDoc:
    """What a key means; keys of plugin sections are those of the default plugin.

    Raises:
        ConfigError: the schema has no such key.
    """
    parts = tuple(path.split("."))
    holder = slot_at(schema, parts[:-1])
    if holder is not None and holder.is_plugin and holder.kind is not None and parts[-1] == "name":
        return describe_plugin_name(holder.kind)
    slot = slot_at(schema, parts)
    if slot is not None:
        return describe_slot(slot, schema, parts)
    if holder is not None and holder.is_plugin and holder.kind is not None:
        return FieldDoc(f"An option of the chosen one of {holder.kind.kind}.", None, "depends on the plugin", "")
    raise ConfigError(f"{path}: no such key. {suggest_key(schema, parts)}")


def describe_slot(slot: Slot, schema: type[Section], path: KeyPath, settings: Node | None = None) -> FieldDoc:
    """What the place of a schema at a path means; `settings` says which plugins are chosen."""
    parent = slot_at(schema, path[:-1], settings)
    owner = parent.section(settings.find(path[:-1]) if settings is not None else None) if parent is not None else None
    text = field_help(owner, path[-1]) if owner is not None else ""
    section = section_type(slot.annotation)
    if slot.kind is not None and slot.is_plugin:
        is_required = slot.kind.default is None and slot.field is not None and slot.field.is_required()
        return FieldDoc(text, slot.kind.default, type_text(slot), "", is_required)
    if section is not None:
        return FieldDoc(text or section_help(section), None, type_text(slot), "")
    default = default_at(schema, path, settings)
    is_required = default is MISSING and slot.field is not None and slot.field.is_required()
    return FieldDoc(text, None if default is MISSING else default, type_text(slot), limits(slot), is_required)


def describe_plugin_name(kind: PluginKind) -> FieldDoc:
    """What the `name` of a plugin section means."""
    help_text = field_help(PluginSection, "name")
    return FieldDoc(help_text, kind.default, f"name of one of {kind.kind}", "", kind.default is None)


def field_help(owner: type[Section], name: str) -> str:
    """The docstring under a field, looked for in the class and its bases."""
    for base in owner.__mro__[: owner.__mro__.index(Section)]:
        text = _docstrings(base.__module__).get((base.__qualname__, name))
        if text:
            return text
    return ""


def section_help(section: type[Section]) -> str:
    """First paragraph of a section's docstring."""
    text = inspect.cleandoc(section.__doc__ or "")
    return " ".join(text.partition("\n\n")[0].split())


def type_text(slot: Slot) -> str:
    """What may stand at a place, in words."""
    if slot.kind is not None and slot.is_plugin:
        return f"a plugin of the kind {slot.kind.kind}" + (" or null" if type(None) in members(slot.annotation) else "")
    if slot.kind is not None:
        return f"list of plugins of the kind {slot.kind.kind}"
    return annotation_text(slot.annotation)


def annotation_text(annotation: Any) -> str:
    """A type in words: `int | None` is `whole number or null`."""
    return " or ".join(dict.fromkeys(_member_text(member) for member in members(annotation)))


def choices(annotation: Any) -> list[Any]:
    """The values that a type lists one by one; empty for any other type."""
    return [value for member in members(annotation) if get_origin(member) is Literal for value in get_args(member)]


def limits(slot: Slot) -> str:
    """The limits of a field in words."""
    if slot.field is None:
        return ""
    words: list[str] = []
    for wording in (LIMIT_WORDS, LENGTH_WORDS, OTHER_WORDS):
        for name, template in wording.items():
            bounds = (getattr(mark, name, None) for mark in slot.field.metadata)
            words += [template.format(_bound(bound)) for bound in bounds if bound is not None]
    return " and ".join(words)


def _bound(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _member_text(member: Any) -> str:
    if get_origin(member) is Literal:
        values = [repr(value) for value in get_args(member)]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    if isinstance(member, type) and issubclass(member, SecretStr):
        return "text (secret)"
    if isinstance(member, type) and issubclass(member, PluginSection):
        return "plugin section"
    if isinstance(member, type) and issubclass(member, Section):
        return "section"
    arguments = get_args(member)
    if arguments and get_origin(member) is tuple and all(section_type(item) is not None for item in arguments[:1]):
        return f"list of {annotation_text(arguments[0])}s"
    if arguments and get_origin(member) is tuple and Ellipsis not in arguments:
        kinds = {annotation_text(item) for item in arguments}
        return f"list of {len(arguments)} {'numbers' if kinds <= {'number', 'whole number'} else 'values'}"
    holder = get_origin(member)
    if arguments and isinstance(holder, type) and not issubclass(holder, dict):
        item = annotation_text(arguments[0])
        return f"list of {item}{'' if item.endswith('text') else 's'}"
    if arguments:
        return f"section of any keys ({annotation_text(arguments[-1])})"
    return TYPE_NAMES.get(member, "any value" if member is Any else "text")


@cache
def _docstrings(module_name: str) -> dict[tuple[str, str], str]:
    """Texts under the fields of a module's classes by class and field; empty when there is no source."""
    module = sys.modules.get(module_name)
    try:
        tree = ast.parse(inspect.getsource(module)) if module is not None else ast.Module([], [])
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[tuple[str, str], str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found |= {(node.name, name): text for name, text in _field_texts(node)}
    return found


def _field_texts(node: ast.ClassDef) -> list[tuple[str, str]]:
    texts: list[tuple[str, str]] = []
    for field, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            value = after.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                texts.append((field.target.id, " ".join(value.value.split())))
    return texts
