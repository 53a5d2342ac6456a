"""The share of a row's tests that the program in a completion passes, run in the sandbox."""

from typing import TYPE_CHECKING

from llmkit.config.section import Section, all_defaults
from llmkit.rollout.sandbox.config import SandboxConfig

if TYPE_CHECKING:
    from llmkit.rollout.rewards.code_tests import CodeReward

IN_PROCESS = True


class Config(Section):
    """The program is the last block of Python code in the completion; without one the reward is 0.

    Tests are a column of the row: a list of statements such as `assert add(1, 2) == 3`; or of objects with `input` and
    `output` for programs that read stdin; or text with such a list in JSON, or with a whole test program.
    """

    column: str = "tests"
    """Column of the row that has the tests."""
    all_or_nothing: bool = True
    """1 when every test passes, else 0; off gives the share of tests that pass."""
    sandbox: SandboxConfig = all_defaults(SandboxConfig)


def build(config: Config) -> "CodeReward":
    """Make the reward."""
    from llmkit.rollout.rewards.code_tests import CodeReward

    return CodeReward(config)
