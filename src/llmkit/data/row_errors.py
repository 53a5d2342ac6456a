"""What happens to a row that cannot be used: the run stops, or the row is left out, counted and written down."""

import json
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from llmkit.errors import DataError

OnError = Literal["raise", "skip"]


class RowErrors:
    """Stops at the first faulty row, or skips faulty rows up to a limit. A row that comes again counts once.

    Attributes:
        num_skipped: rows that were left out so far.
    """

    def __init__(self, on_error: OnError, max_skipped: int, report: Path | None = None) -> None:
        """
        Args:
            on_error: `raise` or `skip`.
            max_skipped: most rows to skip; one more is an error.
            report: JSON Lines file for the skipped rows' places and faults; None keeps no report.
        """
        self.num_skipped = 0
        self._on_error = on_error
        self._max_skipped = max_skipped
        self._report = report
        self._known: set[str] = set()

    def handle(self, error: DataError) -> None:
        """Take note of a faulty row.

        Raises:
            DataError: rows are not skipped, or too many were.
        """
        if self._on_error == "raise":
            raise DataError(f"{error} (or leave faulty rows out: --set data.on_error=skip)") from None
        # The message names the row's place.
        digest = blake2b(str(error).encode(), digest_size=8).hexdigest()
        if digest in self._known:
            return
        self._known.add(digest)
        self.num_skipped += 1
        if self._report is not None:
            _append(self._report, [json.dumps({"error": str(error)}, ensure_ascii=False)])
        if self.num_skipped > self._max_skipped:
            where = f" All of them: {self._report}." if self._report is not None else ""
            raise DataError(
                f"{self.num_skipped} faulty rows, more than data.max_skipped={self._max_skipped} allows.{where} "
                f"The last one: {error}"
            )

    def known(self) -> list[str]:
        """The rows that were left out, as a checkpoint keeps them."""
        return sorted(self._known)

    def learn(self, known: Iterable[str]) -> None:
        """Count rows as left out already, as the run did whose checkpoint it is."""
        new = set(known) - self._known
        self._known |= new
        self.num_skipped += len(new)

    def move_report(self, path: Path) -> None:
        """Go on with the report at `path`; faults that it tells already, as of a run that is resumed, stay single."""
        former, self._report = self._report, path
        if former is None or not former.exists():
            return
        told = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()
        _append(path, [line for line in former.read_text(encoding="utf-8").splitlines() if line not in told])
        former.unlink()


def _append(report: Path, lines: list[str]) -> None:
    report.parent.mkdir(parents=True, exist_ok=True)
    with report.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
