"""Asks for a boxed answer to a problem, with Python at hand if wanted."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from llmkit.config.section import Section, all_defaults
from llmkit.rollout.sandbox.config import SandboxConfig

if TYPE_CHECKING:
    from llmkit.rollout.workflows.calling import Calling


class Config(Section):
    """The reward `math` or `gsm8k` verifies the answers."""

    instruction: str = "Reason step by step, and put your final answer within \\boxed{}."
    """What is added to the user's last message; empty adds nothing."""
    python: bool = False
    """Offer the tool `python`, which runs programs in the sandbox; `sampling.max_new_tokens` is then of all turns
    together, results included."""
    tool_parser: Literal["auto", "hermes", "llama3", "mistral"] = "auto"
    """How the model writes calls; `auto` goes by the chat template."""
    max_turns: int = Field(8, ge=2)
    """Most turns of the model, with Python."""
    sandbox: SandboxConfig = all_defaults(SandboxConfig)


def build(config: Config) -> "Calling":
    """Make the workflow."""
    from llmkit.rollout.workflows.calling import Calling
    from llmkit.rollout.workflows.tool_loop import ToolLoop
    from llmkit.rollout.workflows.toolbox import Toolbox

    loop = ToolLoop(Toolbox(python=config.sandbox), config.tool_parser, config.max_turns) if config.python else None
    return Calling(loop, config.instruction)
