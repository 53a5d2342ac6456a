"""The JSON schema of a command's configuration, for editors; plugin sections offer every installed plugin."""

from functools import cache
from typing import Any, Literal, Union

from pydantic import ConfigDict, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from llmkit.config.docs import field_help
from llmkit.config.section import PluginKind, PluginSection, Section
from llmkit.config.shape import Slot, item_type, members, plugin_kind, plugin_model, section_type
from llmkit.config.sources import EXTENDS
from llmkit.errors import PluginError

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(schema: type[Section], command: str) -> tuple[dict[str, Any], list[str]]:
    """The schema of files for one command.

    Returns: the JSON schema, and why plugins that cannot be loaded are not in it.
    """
    left_out: list[str] = []
    model = _Opener(left_out).section(schema)
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


class _Opener:
    """Makes copies of schemas in which every plugin section takes any installed plugin's options, or its bare name."""

    def __init__(self, left_out: list[str]) -> None:
        """
        Args:
            left_out: takes the reasons why plugins are not in the schema.
        """
        self._left_out = left_out
        self._plugins: dict[tuple[str, str], type[Section]] = {}
        self._open: list[tuple[str, str]] = []

    def section(self, schema: type[Section]) -> type[Section]:
        """The copy of a section; the section itself when no plugin goes into it."""
        fields: dict[str, Any] = {}
        for name, field in schema.model_fields.items():
            slot = Slot(field.annotation, plugin_kind(field), field)
            annotation = self._annotation(slot)
            if slot.kind is not None and field.is_required():
                fields[name] = (annotation, slot.kind.default if slot.kind.default is not None else ...)
            elif annotation is not None:
                fields[name] = (annotation, field)
        if not fields:
            return schema
        return create_model(schema.__name__, __base__=schema, __module__=schema.__module__, **fields)

    def _annotation(self, slot: Slot) -> Any:
        """The type in which a field takes every plugin; None when it has none inside."""
        optional = type(None) in members(slot.annotation)
        if slot.kind is not None:
            plugin = self._any_plugin(slot.kind)
            return list[plugin] if not slot.is_plugin else plugin | None if optional else plugin
        item = section_type(item_type(slot.annotation, "0"))
        section = item or section_type(slot.annotation)
        inner: Any = self.section(section) if section is not None else None
        if inner is section:
            return None
        inner = list[inner] if item is not None else inner
        return inner | None if optional else inner

    def _any_plugin(self, kind: PluginKind) -> Any:
        """A plugin's name, or one of the plugins' sections; each allows its own `name` alone."""
        from llmkit import plugins

        models: dict[str, type[Section]] = {}
        for name in plugins.names(kind.kind):
            try:
                models[name] = self._plugin(kind.kind, name)
            except PluginError as error:
                self._left_out.append(str(error))
        if not models:
            return PluginSection | str
        sections: Any = Union[tuple(models.values())]  # noqa: UP007 - made of a tuple
        names: Any = Literal[tuple(models)]
        return names | sections

    def _plugin(self, kind: str, name: str) -> type[Section]:
        """The section of one plugin. One inside itself, as a mixture of mixtures, takes any key there."""
        if (kind, name) in self._open:
            return _any_keys(kind, name)
        if (kind, name) not in self._plugins:
            self._open.append((kind, name))
            try:
                self._plugins[kind, name] = self.section(plugin_model(kind, name))
            finally:
                self._open.pop()
        return self._plugins[kind, name]


@cache
def _any_keys(kind: str, name: str) -> type[Section]:
    """A plugin's section that has its name and any keys."""
    fixed: Any = (Literal[name], name)

    class Inner(PluginSection):
        model_config = ConfigDict(extra="allow")

    return create_model(f"{name}_{kind}_inside", __base__=Inner, name=fixed)
