"""How long prompts and completions are, and the prompts: random tokens, with a beginning in common or not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from llmkit.errors import ConfigError


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        prompt: token ids.
        output_tokens: of its completion.
    """

    prompt: Sequence[int]
    output_tokens: int


@dataclass(frozen=True)
class Between:
    """A number of tokens, drawn evenly.

    Attributes:
        low: fewest.
        high: most; the same draws nothing.
    """

    low: int
    high: int

    def draw(self, random: Random) -> int:
        """One number."""
        return self.low if self.low == self.high else random.randint(self.low, self.high)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def parse_between(flag: str, text: str) -> Between:
    """`128`, or `64-256`.

    Raises:
        ConfigError: it is neither, or counts down; names the flag.
    """
    low, dash, high = text.partition("-")
    try:
        found = Between(int(low), int(high) if dash else int(low))
    except ValueError:
        raise ConfigError(f"{flag} {text}: give a number of tokens, or a range such as 64-256") from None
    if not 1 <= found.low <= found.high:
        raise ConfigError(f"{flag} {text}: must be at least 1, and a range goes up")
    return found


@dataclass(frozen=True)
class Traffic:
    """What requests look like.

    Attributes:
        input_tokens: of prompts, besides the beginning that they share.
        output_tokens: of completions.
        pairs: both numbers as they were seen somewhere, drawn from in place of those; empty without.
        vocabulary: prompts are of tokens below it.
        prefix_tokens: that prompts begin with in common.
        num_prefixes: different beginnings.
    """

    input_tokens: Between
    output_tokens: Between
    pairs: tuple[tuple[int, int], ...] = ()
    vocabulary: int = 256
    prefix_tokens: int = 0
    num_prefixes: int = 1

    def requests(self, count: int, seed: int) -> list[Ask]:
        """Requests whose prompts are all different, so that a cache helps with nothing but the shared beginnings."""
        random = Random(seed)
        prefixes = [self._tokens(random, self.prefix_tokens) for _ in range(self.num_prefixes)]
        made = []
        for index in range(count):
            size, answer = random.choice(self.pairs) if self.pairs else (
                self.input_tokens.draw(random), self.output_tokens.draw(random)
            )  # fmt: skip
            made.append(Ask(prefixes[index % len(prefixes)] + self._tokens(random, size), answer))
        return made

    def describe(self) -> dict[str, Any]:
        """As the document of a benchmark has it."""
        lengths: dict[str, Any] = {"input_tokens": str(self.input_tokens), "output_tokens": str(self.output_tokens)}
        if self.pairs:
            lengths = {"lengths": len(self.pairs)}
        return lengths | {"shared_prefix_tokens": self.prefix_tokens, "num_prefixes": self.num_prefixes}

    def _tokens(self, random: Random, count: int) -> list[int]:
        return [random.randrange(self.vocabulary) for _ in range(count)]


def read_pairs(path: Path) -> tuple[tuple[int, int], ...]:
    """Lengths that were seen: a file of JSON lines with `input_tokens` and `output_tokens`.

    Raises:
        ConfigError: it cannot be read, or a line has no such numbers; names the line.
    """
    found = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    found.append(_pair(line, f"{path}:{number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--lengths {path}: cannot be read: {error}") from None
    if not found:
        raise ConfigError(f"--lengths {path}: has no lines")
    return tuple(found)


def _pair(line: str, place: str) -> tuple[int, int]:
    try:
        row = json.loads(line)
        pair = (row["input_tokens"], row["output_tokens"])
    except (ValueError, KeyError, TypeError):
        pair = (0, 0)
    if not all(isinstance(value, int) and value > 0 for value in pair):
        raise ConfigError(f'{place}: give {{"input_tokens": N, "output_tokens": N}} with numbers above 0')
    return pair
