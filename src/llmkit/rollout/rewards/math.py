"""1 for a final answer that is the reference as a number, formula, set or interval, by math-verify; else 0."""

from llmkit.config.section import Section
from llmkit.rollout.rewards.final_answer import extract_answer
from llmkit.rollout.rewards.numbers import parse_number, same_number
from llmkit.rollout.rewards.reference import reference_answer
from llmkit.rollout.rewards.symbolic import load_math_verify, same_formula
from llmkit.types import Rollout

EXTRA = "math"


class Config(Section):
    """The answer is what `\\boxed` holds, or follows `####` or `the answer is`; the last one if there are several."""

    strict: bool = True
    """Only marked answers count; off takes the last number of a text that marks none."""


def build(config: Config) -> "MathReward":
    """Make the reward.

    Raises:
        PluginError: math-verify is not installed.
    """
    load_math_verify()
    return MathReward(config)


def quick(config: Config, rollout: Rollout) -> float | None:
    """0 without an answer and 1 for the same number; formulas may take for ever."""
    answers = _answers(config, rollout)
    if answers is None:
        return 0.0
    answer, reference = map(parse_number, answers)
    return 1.0 if answer is not None and reference is not None and same_number(answer, reference) else None


class MathReward:
    """The reward; it has no deadline of its own."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, rollout: Rollout) -> float:
        """1 when the completion's final answer is the reference answer, else 0.

        Raises:
            RewardError: the record has no reference answer.
        """
        known = quick(self._config, rollout)
        if known is not None:
            return known
        answers = _answers(self._config, rollout)
        return float(answers is not None and same_formula(*answers, timeout_seconds=None))


def _answers(config: Config, rollout: Rollout) -> tuple[str, str] | None:
    """The completion's answer and the reference; None when the completion has none."""
    reference = reference_answer(rollout, "math")
    answer = extract_answer(rollout.last_turn, strict=config.strict)
    return None if answer is None else (answer, extract_answer(reference, strict=True) or reference)
