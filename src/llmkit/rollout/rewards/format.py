"""1 for a completion of the wanted form, else 0: a regular expression, or tags such as `<think>` and `<answer>`."""

import re
from typing import Self

from pydantic import Field, model_validator

from llmkit.config.section import Section
from llmkit.types import Rollout


class Config(Section):
    """Either `tags` or a `pattern`."""

    tags: tuple[str, ...] = ()
    """Names of tags that enclose the whole completion one after another: with `[think, answer]` it must be
    `<think>...</think> <answer>...</answer>`, each tag once and nothing but white space outside."""
    pattern: str | None = None
    """Regular expression that the whole completion must match; `.` matches line ends too."""
    prefix: str = ""
    """Text before the completion that counts as its beginning, where the prompt ends in `<think>`."""
    every_turn: bool = Field(False)
    """Every turn of the policy must have the form; off looks at the last one."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if bool(self.tags) == (self.pattern is not None):
            raise ValueError("give either `tags` or a `pattern`, such as tags=[think,answer]")
        for tag in self.tags:
            if not re.fullmatch(r"[\w-]+", tag):
                raise ValueError(f"{tag!r} is no name of a tag; give it without brackets")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from None
        return self


def build(config: Config) -> "Format":
    """Make the reward."""
    return Format(config)


def quick(config: Config, rollout: Rollout) -> float | None:
    """Tags at once; a regular expression may take for ever."""
    return Format(config)(rollout) if config.tags else None


class Format:
    """The reward: a pure function of the completion."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, rollout: Rollout) -> float:
        """1 or 0."""
        turns = rollout.turns if self._config.every_turn and rollout.turns else (rollout.last_turn,)
        return float(all(self._has_form(self._config.prefix + turn) for turn in turns))

    def _has_form(self, text: str) -> bool:
        if self._config.pattern is not None:
            return re.fullmatch(self._config.pattern, text, re.DOTALL) is not None
        return _in_tags(text, self._config.tags)


def _in_tags(text: str, tags: tuple[str, ...]) -> bool:
    rest = text.strip()
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1 or not rest.startswith(opening):
            return False
        _, _, rest = rest.partition(closing)
        rest = rest.lstrip()
    return not rest
