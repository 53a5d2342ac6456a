"""Users' tools in a child process: functions with schemas made of their signatures."""

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from llmkit.errors import ConfigError
from llmkit.rollout.user_code import load_function
from llmkit.rollout.workflows.python_tool import PYTHON


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


def open_tools(places: Sequence[str]) -> Callable[[str, dict[str, Any] | None], Any]:
    """What calls a function by name; without arguments it gives all schemas by name.

    Raises:
        ConfigError: a function is not there, two have one name, or a signature cannot be told in JSON.
    """
    functions: dict[str, tuple[Callable[..., Any], type[BaseModel]]] = {}
    for place in places:
        function = load_function(place, "workflow.functions")
        name = place.rpartition(":")[2]
        if name in functions or name == PYTHON:
            raise ConfigError(f"workflow.functions: two tools are named '{name}'")
        functions[name] = (function, _arguments(name, function))

    def call(name: str, arguments: dict[str, Any] | None) -> Any:
        if arguments is None:
            return {name: _schema(name, *parts) for name, parts in functions.items()}
        function, model = functions[name]
        checked = model.model_validate(arguments)
        result = function(**{key: getattr(checked, key) for key in model.model_fields})
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)

    return call


async def _awaited(result: Any) -> Any:
    return await result


def _arguments(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    """The function's parameters as a model, which checks what a model writes."""
    fields: dict[str, Any] = {}
    for key, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigError(
                f"workflow.functions: the tool '{name}' has the parameter '{parameter}', which has no name"
            )
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        fields[key] = (kind, ... if parameter.default is parameter.empty else parameter.default)
    return create_model(name, __base__=_Arguments, **fields)


def _schema(name: str, function: Callable[..., Any], model: type[BaseModel]) -> dict[str, Any]:
    parameters = model.model_json_schema()
    parameters.pop("title", None)
    parameters.pop("additionalProperties", None)
    for described in parameters.get("properties", {}).values():
        described.pop("title", None)
    description = inspect.getdoc(function) or ""
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }
