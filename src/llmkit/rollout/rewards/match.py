"""1 for a completion that is, has, or chooses the reference answer, else 0."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from llmkit.config.section import Section
from llmkit.rollout.rewards.final_answer import CONTROL_TOKENS
from llmkit.rollout.rewards.reference import reference_answer
from llmkit.types import Rollout


class Config(Section):
    """How the two are compared; spaces at the ends and repeated ones never count."""

    method: Literal["exact", "contains", "regex", "choice"] = "exact"
    """`exact` the whole completion is the answer; `contains` the answer is somewhere in it; `regex` what `pattern`
    finds last is the answer; `choice` the letter that the completion chooses is."""
    pattern: str | None = None
    """Regular expression for `regex`: its first group, or the whole match. Unset takes the row's answer as the
    expression, which has to be found."""
    choices: str = Field("ABCDE", min_length=2, pattern=r"^[A-Za-z]+$")
    """The letters that `choice` chooses from."""
    ignore_case: bool = True
    """`Paris` and `paris` are the same; letters of `choice` are always of the same case."""

    @model_validator(mode="after")
    def _pattern_is_one(self) -> Self:
        if self.pattern is not None:
            if self.method != "regex":
                raise ValueError(f"`pattern` goes with method=regex, not with method={self.method}")
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from None
        return self


def build(config: Config) -> "Match":
    """Make the reward."""
    return Match(config)


def quick(config: Config, rollout: Rollout) -> float | None:
    """Everything but a regular expression, which may take for ever."""
    return None if config.method == "regex" else Match(config)(rollout)


class Match:
    """The reward: a pure function of the completion and the record's reference answer."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, rollout: Rollout) -> float:
        """1 or 0.

        Raises:
            RewardError: the record has no reference answer.
        """
        reference = reference_answer(rollout, "match")
        text = CONTROL_TOKENS.sub(" ", rollout.last_turn)
        match self._config.method:
            case "exact":
                return float(self._plain(text) == self._plain(reference))
            case "contains":
                return float(self._plain(reference) in self._plain(text))
            case "regex":
                return float(self._found(text, reference))
            case "choice":
                chosen = self._chosen(text)
                return float(chosen is not None and chosen == self._chosen(reference))

    def _plain(self, text: str) -> str:
        text = " ".join(text.split())
        return text.casefold() if self._config.ignore_case else text

    def _found(self, text: str, reference: str) -> bool:
        flags = re.IGNORECASE if self._config.ignore_case else 0
        if self._config.pattern is None:
            return re.search(reference, text, flags) is not None
        matches = list(re.finditer(self._config.pattern, text, flags))
        if not matches:
            return False
        last = matches[-1]
        return self._plain((last[1] if last.re.groups else last[0]) or "") == self._plain(reference)

    def _chosen(self, text: str) -> str | None:
        """The letter that is marked as the answer, else the last one that stands alone."""
        letters = "".join(sorted({*self._config.choices.lower(), *self._config.choices.upper()}))
        capitals = self._config.choices.upper()
        marked = re.findall(
            rf"(?:\banswer\b[*_\s]*(?:is|:|=)?|\\boxed\{{(?:\\text\{{)?|####)[*_:\s]*\(?([{letters}])(?![A-Za-z'])",
            text,
            re.IGNORECASE,
        )
        found = marked or re.findall(rf"(?<![A-Za-z'])([{capitals}])(?![A-Za-z'])", text)
        if not found and re.fullmatch(rf"\W*[{letters}]\W*", text.strip()):
            found = re.findall(rf"[{letters}]", text)
        return found[-1].upper() if found else None
