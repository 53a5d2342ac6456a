"""The JSON schema of a command's configuration, for editors; plugin sections offer every installed plugin."""

from typing import Any, Literal, Union

from pydantic import create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from llmkit.config.docs import field_help
from llmkit.config.section import PluginKind, PluginSection, Section
from llmkit.config.shape import Slot, members, plugin_kind, plugin_model, section_type
from llmkit.config.sources import EXTENDS
from llmkit.errors import PluginError

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(schema: type[Section], command: str) -> tuple[dict[str, Any], list[str]]:
    """The schema of files for one command.

    Returns: the JSON schema, and why plugins that cannot be loaded are not in it.
    """
    left_out: list[str] = []
    model = _open_to_plugins(schema, left_out)
    document = model.model_json_schema(schema_generator=_Documented)
    name = {"type": "string"}
    extends = {
        "description": "Presets or files to start from; later ones win.",
        "anyOf": [name, {"type": "array", "items": name}],
    }
    document["properties"] = {EXTENDS: extends, **document["properties"]}
    return {"$schema": DIALECT, "$id": f"llmkit:{command}", **document}, left_out


class _Documented(GenerateJsonSchema):
    """Adds the docstrings under fields as descriptions.

    Nothing is required: one file need not say everything, as presets, options and other files add to it.
    """

    def model_schema(self, schema: Any) -> JsonSchemaValue:
        """The schema of one section."""
        result = super().model_schema(schema)
        result.pop("required", None)
        for name, entry in result.get("properties", {}).items():
            if text := field_help(schema["cls"], name):
                entry["description"] = text
        return result


def _open_to_plugins(schema: type[Section], left_out: list[str]) -> type[Section]:
    """A copy of a schema in which every plugin section takes any installed plugin's options, or its bare name."""
    fields: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        slot = Slot(field.annotation, plugin_kind(field), field)
        annotation = _annotation(slot, left_out)
        if slot.kind is not None and field.is_required():
            fields[name] = (annotation, slot.kind.default if slot.kind.default is not None else ...)
        elif annotation is not None:
            fields[name] = (annotation, field)
    return create_model(schema.__name__, __base__=schema, __module__=schema.__module__, **fields) if fields else schema


def _annotation(slot: Slot, left_out: list[str]) -> Any:
    """The type in which a field takes every plugin; None when it has none inside."""
    optional = type(None) in members(slot.annotation)
    if slot.kind is not None:
        plugin = _any_plugin(slot.kind, left_out)
        return list[plugin] if not slot.is_plugin else plugin | None if optional else plugin
    section = section_type(slot.annotation)
    inner: Any = _open_to_plugins(section, left_out) if section is not None else None
    if inner is section:
        return None
    return inner | None if optional else inner


def _any_plugin(kind: PluginKind, left_out: list[str]) -> Any:
    """A plugin's name, or one of the plugins' sections; each allows its own `name` alone."""
    from llmkit import plugins

    models: dict[str, type[Section]] = {}
    for name in plugins.names(kind.kind):
        try:
            models[name] = _open_to_plugins(plugin_model(kind.kind, name), left_out)
        except PluginError as error:
            left_out.append(str(error))
    if not models:
        return PluginSection | str
    sections: Any = Union[tuple(models.values())]  # noqa: UP007 - made of a tuple
    names: Any = Literal[tuple(models)]
    return names | sections
