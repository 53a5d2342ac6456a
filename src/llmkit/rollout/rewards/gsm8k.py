"""1 for the right final answer of a word problem, else 0; numbers are compared exactly."""

from importlib.util import find_spec
from typing import Literal

from pydantic import Field

from llmkit.config.section import Section
from llmkit.rollout.rewards.final_answer import extract_answer
from llmkit.rollout.rewards.numbers import parse_number, plain_text, same_number
from llmkit.rollout.rewards.reference import reference_answer
from llmkit.rollout.rewards.symbolic import load_math_verify, same_formula
from llmkit.types import Rollout


class Config(Section):
    """The answer is what follows `####`, `\\boxed` or `the answer is`, the last one where there are several."""

    strict: bool = False
    """Only marked answers count; off takes the last number of a text that marks none."""
    method: Literal["auto", "exact", "math_verify"] = "auto"
    """`exact` compares numbers as fractions and anything else as text; `math_verify` compares formulas too (needs
    llmkit[math]); `auto` asks math-verify about formulas when it is installed."""
    timeout_seconds: int = Field(5, ge=1)
    """Longest time that math-verify may take to read or compare one answer; one that takes longer is wrong."""


def build(config: Config) -> "GSM8KReward":
    """Make the reward.

    Raises:
        PluginError: math-verify is asked for and is not installed.
    """
    if config.method == "math_verify":
        load_math_verify()
    return GSM8KReward(config)


def quick(config: Config, rollout: Rollout) -> float | None:
    """The reward, unless math-verify has to be asked, which may take for ever."""
    return GSM8KReward(config).without_formulas(rollout)


class GSM8KReward:
    """The reward: a pure function of the completion and the record's reference answer."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, rollout: Rollout) -> float:
        """1 when the completion's final answer is the reference answer, else 0.

        Raises:
            RewardError: the record has no reference answer.
        """
        known = self.without_formulas(rollout)
        if known is not None:
            return known
        answers = self._answers(rollout)
        return float(answers is not None and same_formula(*answers, self._config.timeout_seconds))

    def without_formulas(self, rollout: Rollout) -> float | None:
        """The reward where it is certain without math-verify, None where it is not.

        Raises:
            RewardError: the record has no reference answer.
        """
        answers = self._answers(rollout)
        if answers is None:
            return 0.0
        is_right = self._is_right(*answers)
        return None if is_right is None else float(is_right)

    def _answers(self, rollout: Rollout) -> tuple[str, str] | None:
        """The completion's answer and the reference; None when the completion has none."""
        reference = reference_answer(rollout, "gsm8k")
        answer = extract_answer(rollout.last_turn, strict=self._config.strict)
        return None if answer is None else (answer, extract_answer(reference, strict=True) or reference)

    def _is_right(self, answer: str, reference: str) -> bool | None:
        """None when math-verify has to be asked."""
        if self._config.method == "math_verify":
            return None
        number, wanted = parse_number(answer), parse_number(reference)
        if number is not None and wanted is not None:
            return same_number(number, wanted)
        if _plain(answer) == _plain(reference):
            return True
        return None if self._config.method == "auto" and _has_math_verify() else False


def _has_math_verify() -> bool:
    return find_spec("math_verify") is not None


def _plain(answer: str) -> str:
    """An answer in words without case, outer punctuation and repeated spaces."""
    return " ".join(plain_text(answer).casefold().split()).strip(" .!$*_\"'")
