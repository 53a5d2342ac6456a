from typing import Any

import pytest

from llmkit.engines.inference.sampling.closing import closed

POINT = {"type": "object", "properties": {"x": {"type": "number"}}}
CLOSED = {**POINT, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (POINT, CLOSED),
        ({"type": "array", "items": POINT}, {"type": "array", "items": CLOSED}),
        ({"anyOf": [POINT, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        ({"$ref": "#/$defs/p", "$defs": {"p": POINT}}, {"$ref": "#/$defs/p", "$defs": {"p": CLOSED}}),
        # A property may have the name of a keyword, and a value is no schema.
        (
            {"properties": {"properties": POINT, "a": {"const": POINT}}},
            {"properties": {"properties": CLOSED, "a": {"const": POINT}}, "additionalProperties": False},
        ),
    ],
)
def test_objects_get_the_keys_that_their_schema_names(schema: Any, expected: Any):
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "object"},
        {**POINT, "additionalProperties": True},
        {**POINT, "additionalProperties": {"type": "string"}},
        {**POINT, "patternProperties": {"^a": {"type": "string"}}},
        {**POINT, "minProperties": 2},
        {**POINT, "required": ["y"]},
        {"allOf": [POINT, {"properties": {"y": {}}, "required": ["y"]}]},
        {"oneOf": [POINT, {"properties": {"x": {}, "y": {}}, "required": ["y"]}]},
        {**POINT, "anyOf": [{"properties": {"y": {}}, "required": ["y"]}]},
        {**POINT, "$ref": "#/$defs/p", "$defs": {"p": {"properties": {"y": {}}, "required": ["y"]}}},
    ],
)
def test_schemas_that_speak_of_other_keys_stay_as_they_are(schema: Any):
    assert closed(schema) == schema
