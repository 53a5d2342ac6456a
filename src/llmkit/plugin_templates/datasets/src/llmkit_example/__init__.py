"""Additions of two small numbers, made from a seed."""

from random import Random

from pydantic import Field

from llmkit.config.section import Section
from llmkit.types import Row, Source


class Config(Section):
    """Which additions."""

    size: int = Field(1000, ge=1)
    """Number of rows."""
    largest: int = Field(99, ge=1)
    """Largest number to add."""
    seed: int = 0
    """Another seed makes other rows."""


def build(config: Config) -> "Additions":
    """Make the data set; a data set that reads files opens and checks them here."""
    return Additions(config)


class Additions:
    """The data set: row `index` depends on the settings and the index alone."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __len__(self) -> int:
        return self._config.size

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(index)
        random = Random(f"{self._config.seed}:{index}")
        first, second = random.randint(0, self._config.largest), random.randint(0, self._config.largest)
        values = {"question": f"What is {first} + {second}?", "answer": f"{first} + {second} = {first + second}"}
        return Row(values, Source("example_name", index + 1))
