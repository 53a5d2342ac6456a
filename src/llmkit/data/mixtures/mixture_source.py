"""One source of a mixture, and the rules by which sources come together."""

import re
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from llmkit.data.contract import Dataset, Fingerprinted, Formatter, Stream
from llmkit.data.mixtures.mixing import Stopping
from llmkit.data.row_views import fingerprint_of
from llmkit.errors import DataError

D = TypeVar("D", bound=Dataset | Stream, covariant=True)
Strategy = Literal["concatenate", "interleave"]
OPTION = re.compile(r"(--set |^)((?:dataset|formatter)[.\w]*=)")
"""An option of a source, as the source's plugins call it."""


@dataclass(frozen=True, slots=True)
class MixtureRules:
    """How sources come together.

    Attributes:
        strategy: one after the other, or by their weights.
        by_tokens: whether weights are shares of the tokens or of the rows.
        stopping: where interleaving ends.
    """

    strategy: Strategy = "concatenate"
    by_tokens: bool = False
    stopping: Stopping = "all_exhausted"


@dataclass(frozen=True, slots=True)
class MixtureSource(Generic[D]):
    """One source.

    Attributes:
        data: its rows.
        formatter: reads them; one that chooses has chosen.
        weight: its share is this over the sum of all weights.
        place: its key in the configuration: `dataset.sources.0`.
        format: what decides how rows are read, for the fingerprint; None when nobody can tell.
    """

    data: D
    formatter: Formatter
    weight: float
    place: str
    format: str | None

    @property
    def has_fingerprint(self) -> bool:
        """Whether its rows can be told from others."""
        return isinstance(self.data, Fingerprinted) and self.format is not None

    def fingerprint(self) -> str:
        """Of its rows and of how they are read; only where it `has_fingerprint`."""
        assert isinstance(self.data, Fingerprinted)
        assert self.format is not None
        return fingerprint_of(self.data.fingerprint(), self.format)

    def told(self, error: DataError) -> DataError:
        """The error of a row or plugin of this source, with options named as the run has them."""
        return told_by(self.place, error)


def told_by(place: str, error: DataError) -> DataError:
    """An error in which `--set formatter.name=...` is `--set dataset.sources.0.formatter.name=...`."""
    return DataError(OPTION.sub(rf"\g<1>{place}.\g<2>", str(error)))
