"""Tool schemas and tool calls, from every way in which rows write them."""

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from llmkit.data.formatters.cells import from_cell
from llmkit.data.formatters.columns import Place
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Source, ToolCall

JSON_TEXT = (".json", ".jsonl", ".ndjson")


def as_tools(value: Any, place: Place) -> str | None:
    """Tool schemas as JSON text; None when there are none.

    A schema without `{"type": "function", "function": ...}` around it is put into that, which is the form that chat
    templates and servers take.

    Raises:
        DataError: it is no list of objects, in JSON or as it is.
    """
    value = from_cell(value or None, place, "a list of tool schemas")
    if not value:
        return None
    if not isinstance(value, list | tuple):
        raise DataError(f"{place} must be a list of tool schemas, this is {kind_of(value)}")
    return to_json([_schema(tool, place.at(index)) for index, tool in enumerate(value)])


def as_tool_calls(item: Mapping[str, Any], place: Place) -> tuple[ToolCall, ...]:
    """The calls of a message: its `tool_calls`, or the one `function_call` of OpenAI's older form.

    Raises:
        DataError: a call has no name, or arguments that are not JSON; or both forms are there.
    """
    calls, single = item.get("tool_calls") or (), item.get("function_call")
    if not calls and not single:
        return ()
    calls = from_cell(calls, place.of("tool_calls"), "a list of tool calls")
    if single and calls:
        raise DataError(f"{place} has 'tool_calls' and 'function_call'; keep one of them")
    if single:
        return (as_tool_call(single, place.of("function_call")),)
    if not isinstance(calls, list | tuple):
        raise DataError(f"{place.of('tool_calls')} must be a list of tool calls, this is {kind_of(calls)}")
    return tuple(as_tool_call(call, place.of("tool_calls").at(index)) for index, call in enumerate(calls))


def as_tool_call(value: Any, place: Place) -> ToolCall:
    """One call: `{id, type, function: {name, arguments}}`, or name and arguments by themselves.

    Raises:
        DataError: it has no name, is of another type than `function`, or its arguments are not JSON.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"{place} must be an object with 'name' and 'arguments', this is {kind_of(value)}")
    if value.get("type") not in (None, "function"):
        raise DataError(f"{place} is a call of the type {value['type']!r}; only 'function' calls can be trained")
    function = value.get("function")
    if function is not None and not isinstance(function, Mapping):
        raise DataError(f"{place.of('function')} must be an object, this is {kind_of(function)}")
    function = value if function is None else function
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{place} has no 'name' of the tool that it calls")
    identifier = value.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise DataError(f"{place.of('id')} must be text, this is {kind_of(identifier)}")
    return ToolCall(name, _arguments(function.get("arguments"), place.of("arguments")), identifier)


def calls_in_text(value: Any, place: Place) -> tuple[ToolCall, ...]:
    """The calls that a turn of ShareGPT writes as JSON: `{"name", "arguments"}`, or a list of them.

    Raises:
        DataError: it is not that.
    """
    value = from_cell(value, place, "a tool call as JSON, {name, arguments} or a list of them")
    calls = value if isinstance(value, list | tuple) else [value]
    if not calls:
        raise DataError(f"{place} is an empty list of tool calls")
    read = (as_tool_call(call, place.at(index) if len(calls) > 1 else place) for index, call in enumerate(calls))
    return tuple(ToolCall(call.name, to_json(json.loads(call.arguments)), call.id) for call in read)


def write_tool_call(call: ToolCall) -> dict[str, Any]:
    """A call in OpenAI's form."""
    written: dict[str, Any] = {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return written if call.id is None else {"id": call.id, **written}


def write_calls_as_text(calls: tuple[ToolCall, ...]) -> str:
    """Calls as the text of a ShareGPT turn."""
    written = [
        {"name": call.name, "arguments": json.loads(call.arguments), **({} if call.id is None else {"id": call.id})}
        for call in calls
    ]
    return to_json(written[0] if len(written) == 1 else written)


def to_json(value: Any) -> str:
    """JSON text on one line, letters of every alphabet as they are."""
    return json.dumps(value, ensure_ascii=False)


def _schema(tool: Any, place: Place) -> Mapping[str, Any]:
    if not isinstance(tool, Mapping):
        raise DataError(f"{place} must be a tool schema, an object with 'name' or 'function'; this is {kind_of(tool)}")
    tool = _without_foreign_nulls(tool, place.source)
    if "type" in tool or "function" in tool:
        return tool
    if not isinstance(tool.get("name"), str):
        raise DataError(f"{place} is a tool schema without 'name'; it has {', '.join(map(str, tool)) or 'nothing'}")
    return {"type": "function", "function": tool}


def _arguments(value: Any, place: Place) -> str:
    """Arguments as JSON text; no arguments are `{}`."""
    if value is None or value == "":
        return "{}"
    if isinstance(value, str):
        try:
            json.loads(value)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else "depth"
            raise DataError(f"{place} is text that is not valid JSON: {reason}") from None
        return value
    if isinstance(value, Mapping | list):
        return to_json(_without_foreign_nulls(value, place.source))
    raise DataError(f"{place} must be an object, or JSON text of one; this is {kind_of(value)}")


def _without_foreign_nulls(value: Any, source: Source) -> Any:
    """A value of a table's column without the keys that are null.

    Arrow gives every object of a column the keys of all others, with null in them. JSON files mean their nulls.
    """
    if any(suffix in PurePath(source.path).name.lower() for suffix in JSON_TEXT):
        return value
    if isinstance(value, Mapping):
        return {key: _without_foreign_nulls(inner, source) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_foreign_nulls(inner, source) for inner in value]
    return value
