"""Objects with the keys that their schema names, and no others.

JSON Schema lets an object have any further keys unless it says `additionalProperties: false`, which few schemas do. Who
draws from such a schema gets keys that nobody asked for, and from a weak model no end of them.
"""

from typing import Any

COMBINING = frozenset(
    ("allOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies", "unevaluatedProperties")
) | {"propertyNames", "$dynamicRef"}
"""With these, fewer keys in one part can leave nothing that fits all, or something that fits two of them."""
SPEAKS_OF_OTHERS = ("additionalProperties", "patternProperties", "minProperties")
BY_NAME = ("properties", "$defs", "definitions", "patternProperties")
LISTS = ("anyOf", "prefixItems")
SINGLE = ("items", "additionalProperties", "contains")


def closed(schema: Any) -> Any:
    """The schema without keys that it does not name, wherever it says nothing of them. What fits it fits `schema`.

    A schema that combines others (`allOf`, `oneOf`, a `$ref` beside `properties`) stays as it is.
    """
    return schema if _combines(schema) else _closed(schema)


def _combines(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_combines, value))
    if not isinstance(value, dict):
        return False
    mixes = "properties" in value and ("$ref" in value or "anyOf" in value)
    return mixes or not COMBINING.isdisjoint(value) or any(map(_combines, value.values()))


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key in BY_NAME:
        if isinstance(parts := schema.get(key), dict):
            result[key] = {name: _closed(part) for name, part in parts.items()}
    for key in LISTS:
        if isinstance(parts := schema.get(key), list):
            result[key] = [_closed(part) for part in parts]
    for key in SINGLE:
        if key in schema:
            result[key] = _closed(schema[key])
    names, required = schema.get("properties"), schema.get("required", [])
    is_whole = isinstance(names, dict) and isinstance(required, list) and all(name in names for name in required)
    if is_whole and not any(key in schema for key in SPEAKS_OF_OTHERS):
        result["additionalProperties"] = False
    return result
