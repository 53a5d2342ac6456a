"""`/openapi.json`: the routes, with the structs that decode requests and make answers."""

from functools import cache
from typing import Any

import msgspec

from llmkit.plugins_requirements import PACKAGE, installed_version
from llmkit.serve.api_errors import dialect_of
from llmkit.serve.http import JSON, Endpoint
from llmkit.serve.schemas.anthropic import AnthropicError
from llmkit.serve.schemas.common import ErrorAnswer

ERRORS = {
    "400": "The request makes no sense.",
    "401": "There is no API key, or it is not known.",
    "403": "The server does not allow this.",
    "404": "There is no such model.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "This key has too many requests in the server; `Retry-After` says when to come again.",
    "500": "The server failed.",
    "503": "The server is full or stops; `Retry-After` says when to come again.",
    "504": "The request took too long.",
}


@cache
def describe(endpoints: tuple[Endpoint, ...]) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    used = {struct for one in endpoints for struct in (one.request, one.answer, one.events) if struct is not None}
    structs = [*sorted(used, key=lambda struct: struct.__name__), ErrorAnswer, AnthropicError]
    schemas, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    references = dict(zip(structs, schemas, strict=True))
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        path = endpoint.path.replace(":path}", "}")
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmkit", "version": installed_version(PACKAGE) or "unknown"},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"bearer": []}, {"header": []}],
    }


def _operation(endpoint: Endpoint, references: dict[Any, Any]) -> dict[str, Any]:
    error = references[AnthropicError if dialect_of(endpoint.path) == "anthropic" else ErrorAnswer]
    content: dict[str, Any] = {}
    if endpoint.answer is not None:
        content[JSON] = {"schema": references[endpoint.answer]}
    else:
        content["text/plain"] = {"schema": {"type": "string"}}
    if endpoint.events is not None or endpoint.path == "/v1/messages":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "summary": (endpoint.handle.__doc__ or "").partition("\n")[0],
        "operationId": endpoint.handle.__name__,
        "responses": {
            "200": {"description": "The answer.", "content": content},
            **{status: {"description": text, "content": {JSON: {"schema": error}}} for status, text in ERRORS.items()},
        },
    }
    if endpoint.request is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": references[endpoint.request]}}}
    if "{" in endpoint.path:
        name = endpoint.path.partition("{")[2].partition(":")[0]
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    if endpoint.is_open:
        operation["security"] = []
    return operation
