"""1 for a completion that ends with the reference answer, else 0."""

from typing import TYPE_CHECKING

from llmkit.config.section import Section
from llmkit.errors import RewardError

if TYPE_CHECKING:
    from llmkit.types import Rollout


class Config(Section):
    """How strictly answers are compared."""

    ignore_case: bool = True
    """`Paris` and `paris` are the same answer."""


def build(config: Config) -> "ExactAnswer":
    """Make the reward."""
    return ExactAnswer(config)


class ExactAnswer:
    """The reward: a pure function of a finished rollout."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, rollout: "Rollout") -> float:
        """1 when the completion's last line is the reference answer, else 0.

        Raises:
            RewardError: the record has no reference answer.
        """
        answer = rollout.record.answer
        if answer is None:
            raise RewardError(f"{rollout.record.source}: no reference answer to compare with")
        lines = rollout.completion.strip().splitlines() or [""]
        return float(self._plain(lines[-1]) == self._plain(answer))

    def _plain(self, text: str) -> str:
        text = text.strip().removesuffix(".")
        return text.casefold() if self._config.ignore_case else text
