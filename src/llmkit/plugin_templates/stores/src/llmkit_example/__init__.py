"""Token ids as numbers in a text file, a sequence on each line."""

from typing import TYPE_CHECKING

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.data.stores.contract import Store


class Config(Section):
    """How the numbers are written."""

    separator: str = " "
    """What stands between two of them."""


def build(config: Config) -> "Store":
    """Make the store. What it needs, numpy for one, is imported here and not above: listing plugins must be quick."""
    from llmkit_example.store import NumberLines

    return NumberLines(config.separator)
