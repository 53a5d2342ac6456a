"""What became of the rows of a pass."""

import sys
import time
from dataclasses import dataclass, field

from llmkit.errors import DataError
from llmkit.formatting import format_number

NUM_LISTED = 100
LINE_SECONDS = 15.0


@dataclass
class Tally:
    """What became of the rows of a pass.

    Attributes:
        read: all of them.
        filtered: left out by length or condition.
        repeated: left out as a repetition.
        faulty: could not be read or held.
        faults: the first of those, in words.
    """

    read: int = 0
    filtered: int = 0
    repeated: int = 0
    faulty: int = 0
    faults: list[str] = field(default_factory=list)

    def add_fault(self, error: DataError) -> None:
        """Count a row that cannot be read or held."""
        self.faulty += 1
        if len(self.faults) < NUM_LISTED:
            self.faults.append(str(error))


class Lines:
    """A line on standard error now and then, for passes that take longer."""

    def __init__(self) -> None:
        self._due = time.monotonic() + LINE_SECONDS

    def tell(self, num_rows: int) -> None:
        """Say how many rows have come, where it is time to."""
        if time.monotonic() > self._due:
            print(f"{format_number(num_rows)} rows read", file=sys.stderr, flush=True)
            self._due += LINE_SECONDS
