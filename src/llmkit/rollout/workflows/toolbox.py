"""The tools of a rollout: Python in the sandbox, and functions of users in child processes."""

import json
from collections.abc import Sequence
from typing import Any

from llmkit.errors import DataError, LLMKitError
from llmkit.rollout.sandbox.config import SandboxConfig
from llmkit.rollout.sandbox.sandbox import Sandbox
from llmkit.rollout.scoring.child_process import ChildDiedError
from llmkit.rollout.scoring.children import Children, ChildTimeoutError
from llmkit.rollout.workflows.python_tool import PYTHON, PYTHON_SCHEMA, with_last_value
from llmkit.types import Record, ToolCall

MOST_MEMORY_MIB = 4096


class Toolbox:
    """Calls tools; whatever goes wrong with a call is told to the model, as the call's result."""

    def __init__(
        self,
        *,
        python: SandboxConfig | None,
        functions: Sequence[str] = (),
        timeout_seconds: float = 30.0,
        max_result_chars: int = 4000,
    ) -> None:
        """Describe the tools; nothing is started yet.

        Args:
            python: limits of Python programs; None has no such tool.
            functions: `file.py:name` or `module:name`.
            timeout_seconds: longest time of one call of a function.
            max_result_chars: of a longer result the end is cut off.
        """
        self._sandbox = Sandbox(python) if python is not None else None
        self._children = None
        if functions:
            target = "llmkit.rollout.workflows.user_tools:open_tools"
            self._children = Children(
                target,
                (list(functions),),
                num_workers=None,
                timeout_seconds=timeout_seconds,
                max_memory_mib=MOST_MEMORY_MIB,
            )
        self._schemas: dict[str, dict[str, Any]] = {PYTHON: PYTHON_SCHEMA} if python is not None else {}
        self._max_result_chars = max_result_chars

    async def open(self) -> None:
        """Load the functions and make sure that programs can be isolated.

        Raises:
            ConfigError: a function is not there or two tools have one name; or programs cannot be isolated.
        """
        if self._sandbox is not None:
            await self._sandbox.start()
        if self._children is not None:
            self._schemas |= await self._children.call("", None)

    async def close(self) -> None:
        """End what runs functions."""
        if self._children is not None:
            await self._children.close()

    def schemas(self, record: Record) -> str | None:
        """JSON text of the tools that a prompt shows: all, or those that the row names, as it describes them.

        Raises:
            DataError: the row has a tool that is not here.
        """
        if record.tools in (None, "[]"):
            return json.dumps(list(self._schemas.values())) if self._schemas else None
        try:
            names = [tool["function"]["name"] for tool in json.loads(record.tools or "")]
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{record.source}: the tools are no JSON list of schemas of functions") from None
        missing = [name for name in names if name not in self._schemas]
        if missing:
            raise DataError(
                f"{record.source}: the row has the tool '{missing[0]}', and there is none to call; there are: "
                f"{', '.join(self._schemas) or 'none'}. Name a function with workflow.functions"
            )
        return record.tools

    async def call(self, call: ToolCall) -> str:
        """The result of a call as text, or what is wrong with it."""
        result = await self._result(call)
        if len(result) <= self._max_result_chars:
            return result
        return f"{result[: self._max_result_chars]}\n[{len(result) - self._max_result_chars} more characters]"

    async def _result(self, call: ToolCall) -> str:
        if call.name not in self._schemas:
            return f"Error: there is no tool '{call.name}'; there are: {', '.join(self._schemas) or 'none'}"
        try:
            arguments = json.loads(call.arguments, strict=False)
        except ValueError as error:
            return f"Error: the arguments are not JSON: {error}"
        if not isinstance(arguments, dict):
            return "Error: the arguments must be a JSON object"
        if call.name == PYTHON and self._sandbox is not None:
            return await self._run(arguments)
        assert self._children is not None, "every other schema came from a child"
        try:
            return await self._children.call(call.name, arguments)
        except (ChildTimeoutError, ChildDiedError) as error:
            return f"Error: the tool '{call.name}' {error}"
        except LLMKitError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's own code, or arguments that it does not take
            return f"Error: {type(error).__name__}: {error}"

    async def _run(self, arguments: dict[str, Any]) -> str:
        code = arguments.get("code")
        if not isinstance(code, str):
            return "Error: the tool 'python' needs the argument 'code', a text"
        assert self._sandbox is not None
        ran = await self._sandbox.run(with_last_value(code))
        parts = [ran.stdout.rstrip("\n"), ran.stderr.rstrip("\n")]
        if ran.timed_out:
            parts.append("Error: the program took too long and was ended")
        elif ran.exit_code < 0:
            parts.append(f"Error: the program was ended by signal {-ran.exit_code}")
        return "\n".join(filter(None, parts)) or "(no output)"
