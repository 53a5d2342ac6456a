"""On what terms the engine takes requests."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """How many may wait, who goes first, and what new weights mean to those that run.

    Attributes:
        max_waiting: completions in the queue, above which `stream` refuses.
        aging_seconds: waiting so long counts as much as one step of priority.
        recomputes: whether running completions compute their cache again with new weights.
    """

    max_waiting: int = 4096
    aging_seconds: float = 10.0
    recomputes: bool = True

    def rank(self, priority: int, arrived: float) -> float:
        """Lower goes first: whoever came `aging_seconds` earlier goes before the next better priority.

        So nobody waits for ever: of those who come later than `aging_seconds` times the difference of priorities, none
        overtakes.

        Args:
            arrived: seconds on any clock that is the same for all.
        """
        return priority + arrived / self.aging_seconds
