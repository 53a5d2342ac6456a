"""Lets the model call tools: Python in the sandbox and functions of your own."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from llmkit.config.section import Section, all_defaults
from llmkit.rollout.sandbox.config import SandboxConfig

if TYPE_CHECKING:
    from llmkit.rollout.workflows.calling import Calling


class Config(Section):
    """`sampling.max_new_tokens` is of all turns together, results and schemas of tools included."""

    python: bool = True
    """Offer the tool `python`, which runs programs in the sandbox."""
    functions: tuple[str, ...] = ()
    """Tools of your own: `file.py:name` or `module:name`. Names, types and defaults of the parameters and the docstring
    describe them to the model; they run in child processes."""
    tool_parser: Literal["auto", "hermes", "llama3", "mistral"] = "auto"
    """How the model writes calls; `auto` goes by the chat template."""
    max_turns: int = Field(8, ge=2)
    """Most turns of the model; a rollout that still calls tools in the last one ends with `length`."""
    max_result_chars: int = Field(4000, ge=100)
    """Of a longer result the end is cut off."""
    timeout_seconds: float = Field(30.0, gt=0)
    """Longest time of one call of a function of yours."""
    sandbox: SandboxConfig = all_defaults(SandboxConfig)

    @model_validator(mode="after")
    def _some_tool_is_there(self) -> Self:
        if not self.python and not self.functions:
            raise ValueError("there is no tool: set python=true or name `functions`")
        return self


def build(config: Config) -> "Calling":
    """Make the workflow."""
    from llmkit.rollout.workflows.calling import Calling
    from llmkit.rollout.workflows.tool_loop import ToolLoop
    from llmkit.rollout.workflows.toolbox import Toolbox

    toolbox = Toolbox(
        python=config.sandbox if config.python else None,
        functions=config.functions,
        timeout_seconds=config.timeout_seconds,
        max_result_chars=config.max_result_chars,
    )
    return Calling(ToolLoop(toolbox, config.tool_parser, config.max_turns))
