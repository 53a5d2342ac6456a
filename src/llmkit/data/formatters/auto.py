"""Finds the formatter that fits the first rows, or says which ones could."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmkit.config.section import Section
from llmkit.data.formatters.columns import columns_of
from llmkit.data.formatters.detection import candidates, close_to_best, proposal, ranked
from llmkit.errors import DataError

if TYPE_CHECKING:
    from llmkit.data.contract import Formatter
    from llmkit.types import Record, Row


class Config(Section):
    """Every installed formatter scores the first rows; the best one is used when it is clearly ahead."""


def build(config: Config) -> "Auto":
    """Make the formatter; it decides when it is shown rows."""
    return Auto()


class Auto:
    """The formatter. It decides once, on the rows given to `choose` or on the first row that it has to read."""

    def __init__(self) -> None:
        self._chosen: Formatter | None = None

    def choose(self, rows: "Sequence[Row]") -> "Formatter":
        """The formatter that fits, which is used from now on.

        Raises:
            DataError: none fits, or several fit about equally well; names them and the option to set.
        """
        if not rows:
            raise DataError("No rows to find the format from; choose one with --set formatter.name=...")
        formatters = candidates()
        ranking = ranked(formatters, rows)
        if not ranking:
            raise DataError(
                f"{rows[0].source}: no formatter fits these rows; found {columns_of(rows[0])}. Installed: "
                f"{', '.join(sorted(formatters))}. {proposal(rows[0])}"
            )
        best, *close = close_to_best(ranking)
        if close:
            names = " or ".join(f"'{name}'" for name in (best, *close))
            raise DataError(
                f"{rows[0].source}: the rows could be {names}; found {columns_of(rows[0])}. Choose with "
                f"--set formatter.name={best}"
            )
        self._chosen = formatters[best]
        return self._chosen

    def score(self, rows: "Sequence[Row]") -> float:
        """The best score that any formatter gives."""
        ranking = ranked(candidates(), rows)
        return ranking[0][0] if ranking else 0.0

    def to_record(self, row: "Row") -> "Record":
        """Read one row with the chosen formatter."""
        return (self._chosen or self.choose([row])).to_record(row)

    def from_record(self, record: "Record") -> Mapping[str, Any]:
        """Write with the chosen formatter."""
        if self._chosen is None:
            raise DataError(f"{record.source}: no format was chosen to write in; choose with --set formatter.name=...")
        return self._chosen.from_record(record)
