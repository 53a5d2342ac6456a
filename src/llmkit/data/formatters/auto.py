"""Finds the formatter that fits the first rows, or says which ones could."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmkit import plugins
from llmkit.config.section import Section
from llmkit.errors import DataError, PluginError

if TYPE_CHECKING:
    from llmkit.data.contract import Formatter
    from llmkit.types import Record, Row

MARGIN = 0.25
"""How far the best score must be above the next one."""


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
        candidates = _candidates()
        scores = {name: formatter.score(rows) for name, formatter in candidates.items()}
        best, *rest = sorted(scores, key=lambda name: (-scores[name], name))
        if scores[best] <= 0:
            raise DataError(_none_fits(rows, sorted(scores)))
        close = [name for name in rest if scores[name] > scores[best] - MARGIN]
        if close:
            names = " or ".join(f"'{name}'" for name in (best, *close))
            raise DataError(
                f"{rows[0].source}: the rows could be {names}; found {_columns(rows)}. Choose with "
                f"--set formatter.name={best}"
            )
        self._chosen = candidates[best]
        return self._chosen

    def score(self, rows: "Sequence[Row]") -> float:
        """The best score that any formatter gives."""
        return max((formatter.score(rows) for formatter in _candidates().values()), default=0.0)

    def to_record(self, row: "Row") -> "Record":
        """Read one row with the chosen formatter."""
        return (self._chosen or self.choose([row])).to_record(row)

    def from_record(self, record: "Record") -> Mapping[str, Any]:
        """Write with the chosen formatter."""
        if self._chosen is None:
            raise DataError(f"{record.source}: no format was chosen to write in; choose with --set formatter.name=...")
        return self._chosen.from_record(record)


def _candidates() -> "dict[str, Formatter]":
    """Every other formatter with its default options, by name."""
    formatters = {}
    for name in plugins.names("formatters"):
        if name == "auto":
            continue
        try:
            plugin = plugins.load("formatters", name)
            formatters[name] = plugin.build(plugin.Config())
        except (PluginError, ValueError):
            # A plugin that cannot be loaded, or needs options, cannot be found by itself; it can still be named.
            continue
    return formatters


def _columns(rows: "Sequence[Row]") -> str:
    return ", ".join(rows[0].values) or "no columns"


def _none_fits(rows: "Sequence[Row]", names: Sequence[str]) -> str:
    return (
        f"{rows[0].source}: no formatter fits these rows; found {_columns(rows)}. Installed: {', '.join(names)}. "
        "Choose one and name its columns: --set formatter.name=prompt_completion --set formatter.prompt_column=... "
        "--set formatter.completion_column=..."
    )
