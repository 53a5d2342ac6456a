"""Explanations, differences and schemas as people read them."""

import sys
from typing import Any

import typer

from llmkit.config.comparing import Difference
from llmkit.config.docs import FieldDoc, describe_slot
from llmkit.config.resolved import Explanation
from llmkit.config.scalars import write_flow
from llmkit.config.section import PluginKind, Section
from llmkit.config.shape import Slot, item_type, plugin_kind, plugin_model, section_type, slot_at
from llmkit.config.tree import KeyPath, Origin, dotted
from llmkit.errors import PluginError

LAYER_WORDS = {
    "default": "default",
    "preset": "preset",
    "file": "--config file",
    "environment": "environment variable",
    "option": "option",
    "set": "command line",
}
LABEL_WIDTH = 10


def print_yaml(text: str) -> None:
    """Print YAML on standard output; on a terminal, keys are bold and comments dim."""
    if not sys.stdout.isatty():
        typer.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.text import Text

    colored = Text(text)
    colored.highlight_regex(r"(?m)^#.*$|  # .*$", "dim")
    colored.highlight_regex(r"(?m)^[ -]*[^\s#:]+:", "bold")
    Console().print(colored, soft_wrap=True, end="")


def explanation_text(one: Explanation) -> str:
    """One key in a few lines."""
    if one.is_section:
        return f"{one.path}\n" + "\n".join(_rows([("", one.doc.help), ("type", one.doc.type_text)]))
    rows = [("", one.doc.help), ("set by", _place(one.origin))]
    if one.written:
        rows.append(("written", one.written))
    rows += [(f"item {index}", _place(item)) for index, item in one.items]
    rows += [("reset by", _place(one.reset_by))] if one.reset_by else []
    rows += [("overrides", _place(lower)) for lower in reversed(one.overridden)]
    rows += _doc_rows(one.doc)
    return f"{one.path}: {write_flow(one.value)}\n" + "\n".join(_rows(rows))


def explanation_dict(one: Explanation) -> dict[str, Any]:
    """One key for programs."""
    return {
        "key": one.path,
        "value": one.value,
        "set_by": _origin_dict(one.origin),
        "written": one.written or None,
        "items": [{"index": index, "set_by": _origin_dict(item)} for index, item in one.items],
        "reset_by": _origin_dict(one.reset_by) if one.reset_by else None,
        "overrides": [_origin_dict(origin) for origin in one.overridden],
        "help": one.doc.help,
        "type": one.doc.type_text,
        "default": _default(one.doc),
        "limits": one.doc.limits or None,
        "required": one.doc.is_required,
    }


def difference_text(one: Difference, first: str, second: str) -> str:
    """One key and its two values, each with its place."""
    lines = [one.path]
    width = max(len(first), len(second))
    for name, value, origin in zip((first, second), one.values, one.origins, strict=True):
        shown = value if origin is None else write_flow(value)
        lines.append(f"  {name:<{width}}  {shown}{f'  ({origin.place})' if origin else ''}")
    return "\n".join(lines)


def difference_dict(one: Difference) -> dict[str, Any]:
    """One key for programs; a side that lacks it is null."""
    sides = [
        None if origin is None else {"value": value, "set_by": _origin_dict(origin)}
        for value, origin in zip(one.values, one.origins, strict=True)
    ]
    return {"key": one.path, "a": sides[0], "b": sides[1]}


def schema_text(schema: type[Section]) -> str:
    """Every key of a schema: type, default, limits and meaning; plugin sections with the options of each plugin."""
    return "\n".join(_section_lines(schema, ()))


def _section_lines(schema: type[Section], path: KeyPath) -> list[str]:
    lines: list[str] = []
    for name, field in schema.model_fields.items():
        slot = Slot(field.annotation, plugin_kind(field), field)
        inner = (*path, name)
        section = section_type(field.annotation)
        lines += _key_lines(dotted(inner), describe_slot(slot, schema, (name,)))
        if slot.kind is not None:
            lines += _plugin_lines(slot.kind, inner)
        elif section is not None:
            lines += _section_lines(section, inner)
    return lines


def _plugin_lines(kind: PluginKind, path: KeyPath) -> list[str]:
    from llmkit import plugins

    lines: list[str] = []
    for name in plugins.names(kind.kind):
        try:
            model = plugin_model(kind.kind, name)
        except PluginError as error:
            lines.append(f"  with name: {name}: cannot be used: {error}")
            continue
        own = [field for field in model.model_fields if field != "name"]
        lines.append(f"  with name: {name}{'' if own else ' (no options)'}")
        for field in own:
            slot = slot_at(model, (field,))
            assert slot is not None
            lines += [f"  {line}" for line in _key_lines(dotted((*path, field)), describe_slot(slot, model, (field,)))]
            item = section_type(item_type(slot.annotation, "0"))
            if item is not None and slot.kind is None:
                lines += [f"    {line}" for line in _item_lines(item, (*path, field, "0"))]
    return lines


def _item_lines(section: type[Section], path: KeyPath) -> list[str]:
    """The keys of a list's first item; a plugin's options are listed where that kind is chosen for the whole run."""
    slots = Slot(section).children()
    return [
        line
        for name, slot in slots
        for line in _key_lines(dotted((*path, name)), describe_slot(slot, section, (name,)))
    ]


def _key_lines(key: str, doc: FieldDoc) -> list[str]:
    facts = [doc.type_text, doc.limits, "required" if doc.is_required else _default_text(doc)]
    lines = [f"{key}: {', '.join(fact for fact in facts if fact)}"]
    return [*lines, f"    {doc.help}"] if doc.help else lines


def _default_text(doc: FieldDoc) -> str:
    return "" if doc.type_text == "section" else f"default {write_flow(_default(doc))}"


def _doc_rows(doc: FieldDoc) -> list[tuple[str, str]]:
    rows = [("type", doc.type_text), ("limits", doc.limits)]
    return [*rows, ("default", "none: must be set" if doc.is_required else write_flow(_default(doc)))]


def _rows(rows: list[tuple[str, str]]) -> list[str]:
    return [f"  {label:<{LABEL_WIDTH}}{text}" if label else f"  {text}" for label, text in rows if text]


def _place(origin: Origin) -> str:
    """A place with its layer and what was written there."""
    if origin.layer == "default":
        return "default"
    words = f"{origin.place}, {LAYER_WORDS[origin.layer]}"
    return f"{words}: {origin.text}" if origin.text else words


def _origin_dict(origin: Origin) -> dict[str, Any]:
    return {"layer": origin.layer, "place": origin.place, "text": origin.text or None}


def _default(doc: FieldDoc) -> Any:
    """A default as plain values."""
    return list(doc.default) if isinstance(doc.default, tuple) else doc.default
