"""Read the rows and gather what is shown of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmkit.config.resolve import Resolved
from llmkit.data.counts import RowCounts
from llmkit.data.every_row import every_row
from llmkit.data.inspecting.subject import Subject, open_subject
from llmkit.data.inspecting.tally import Figures, Tally
from llmkit.data.inspecting.viewing import RowView, choose_rows, view_rows
from llmkit.data.preparing.encode_pool import encode_rows
from llmkit.data.preparing.progress import with_progress
from llmkit.errors import ConfigError


@dataclass(frozen=True)
class Findings:
    """All that is shown.

    Attributes:
        subject: what was looked at.
        views: rows that are shown.
        figures: of the rows that were read; None when only rows were wanted.
        keeps_turns: whether the chat template keeps earlier turns as they are.
        template: a sentence about that.
        hint: where such rows are better looked at; empty when they fit.
    """

    subject: Subject
    views: list[RowView]
    figures: Figures | None
    keeps_turns: bool
    template: str
    hint: str = ""

    @property
    def num_faulty(self) -> int:
        """Faulty rows that were met: those counted, and those shown from behind them."""
        counts = self.figures.counts if self.figures else RowCounts()
        shown = sum(view.outcome == "faulty" and view.number > counts.rows for view in self.views)
        return counts.skipped + shown

    def verdict(self) -> str | None:
        """Why training would stop at faulty rows; None when it would not."""
        faulty, config = self.num_faulty, self.subject.run.data
        if not faulty:
            return None
        told = f"{faulty:,} faulty row{'s' if faulty > 1 else ''}, listed above"
        if config.on_error == "raise":
            return f"{told}; training stops at the first (or leave them out: --on-error skip)"
        if faulty > config.max_skipped:
            return f"{told}; more than data.max_skipped={config.max_skipped} allows"
        return None

    def to_dict(self, command: str, *, raw: bool) -> dict[str, Any]:
        """As plain values for JSON."""
        subject = self.subject
        return {
            "command": command,
            "for": subject.command,
            "dataset": subject.run.dataset.name,
            "num_rows": subject.num_rows,
            "formatter": subject.formatter_name,
            "model": subject.model.path,
            "max_length": subject.run.data.max_length,
            "template": {"keeps_earlier_turns": self.keeps_turns, "verdict": self.template},
            "rows": [view.to_dict(raw=raw) for view in self.views],
            "figures": self.figures.to_dict() if self.figures else None,
        }


def look(
    resolved: Resolved[Any], *, numbers: Sequence[int], num_rows: int, sample: bool, limit: int | None
) -> Findings:
    """Open the data of a run, and view and count its rows.

    Args:
        resolved: the run's configuration.
        numbers: rows to view, from 1.
        num_rows: how many to view when no number is given.
        sample: view random ones.
        limit: rows to count, from the first; None counts all, 0 none.
    Raises:
        ConfigError: a row is asked for that is not there, or all rows of a stream are to be counted.
        DataError: the data cannot be read, or no formatter fits it.
        ModelError: there is no tokenizer.
    """
    subject = open_subject(resolved)
    if limit is None and subject.num_rows is None:
        raise ConfigError(
            f"dataset.name={resolved.run.dataset.name}: a stream may have no end; say how many rows to read, for "
            "example --limit 10000"
        )
    keeps_turns, template = subject.template_verdict()
    views = view_rows(subject, choose_rows(subject, numbers, num_rows, sample=sample))
    figures = None if limit == 0 else count_rows(subject, limit)
    return Findings(subject, views, figures, keeps_turns, template, subject.hint())


def count_rows(subject: Subject, limit: int | None) -> Figures:
    """The figures of the first `limit` rows, or of all."""
    total = subject.num_rows
    if total is not None and limit is not None:
        total = min(total, limit)
    tally = Tally(subject.bin_capacity)
    results = encode_rows(
        every_row(subject.data, limit),
        subject.formatter,
        subject.measuring_encoder,
        num_workers=subject.run.data.num_workers,
    )
    total = limit if total is None else total
    assert total is not None, "a stream has a limit"
    for result in with_progress(results, total, "Reading rows"):
        tally.add(result)
    return tally.figures()
