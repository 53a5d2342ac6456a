"""What a run keeps of its rollouts as they come: the ledger, the errors, and how far it is."""

import time
from collections.abc import Sequence
from pathlib import Path

from llmkit.disk import writing
from llmkit.errors import RolloutError
from llmkit.rollout.ledger import Ledger
from llmkit.rollout.lines import describe_rollout, encode
from llmkit.rollout.making import Failed, Made
from llmkit.trackers.contract import Tracker
from llmkit.trackers.metrics_file import append_line


class Keeper:
    """Writes what was made and what failed, and shows the figures that people watch.

    Attributes:
        num_failed: rollouts of this start that could not be made.
        num_tokens: sampled since the start.
        seconds: from the start to the last rollout.
    """

    def __init__(self, ledger: Ledger, errors: Path, max_errors: int, progress: Tracker) -> None:
        """
        Args:
            ledger: of the run.
            errors: file for the rollouts that fail.
            max_errors: most of them; one more stops the run.
            progress: is told of every rollout.
        """
        self.num_failed = 0
        self.num_tokens = 0
        self.seconds = 0.0
        self._ledger, self._errors, self._max_errors, self._progress = ledger, errors, max_errors, progress
        self._rewards: list[float] = [0, 0.0]
        self._started_at = time.monotonic()

    @property
    def tokens_per_second(self) -> float:
        """Sampled tokens over the whole time."""
        return self.num_tokens / self.seconds if self.seconds else 0.0

    def take(self, made: Sequence[Made]) -> None:
        """Write rollouts down.

        Raises:
            TrainingError: the disk is full.
        """
        self._ledger.add([describe_rollout(one.rollout, one.member, one.making) for one in made])
        self.seconds = time.monotonic() - self._started_at
        for one in made:
            self.num_tokens += one.rollout.completion_length
            if one.rollout.reward is not None:
                self._rewards[0] += 1
                self._rewards[1] += one.rollout.reward
        self._tell()

    def fail(self, failed: Failed) -> None:
        """Write down why a rollout is missing.

        Raises:
            RolloutError: too many failed.
            TrainingError: the disk is full.
        """
        self.num_failed += 1
        line = {
            "group_id": failed.group_id,
            "member": failed.member,
            "source": str(failed.record.source),
            "phase": failed.phase,
            "error": failed.error,
            "completion": failed.completion,
        }
        with writing(self._errors), self._errors.open("ab", buffering=0) as file:
            append_line(file, self._errors, encode(line))
        if self.num_failed > self._max_errors:
            raise RolloutError(
                f"{self.num_failed} rollouts failed, more than max_errors={self._max_errors} allows; the last one, at "
                f"{failed.record.source}, in {failed.phase}: {failed.error}. All of them: {self._errors}. What is done "
                "is kept, and --resume goes on"
            )

    def _tell(self) -> None:
        metrics: dict[str, float | int | str] = {"step": self._ledger.done.num_rollouts}
        if self._rewards[0]:
            metrics["reward_mean"] = self._rewards[1] / self._rewards[0]
        metrics["tokens_per_second"] = self.tokens_per_second
        self._progress.log(metrics)
