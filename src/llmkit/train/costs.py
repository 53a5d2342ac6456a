"""What a step costs: seconds, tokens per second, memory."""

import time

import torch

from llmkit import machine
from llmkit.data.counts import RowCounts


def costs(num_tokens: float, seconds: float, counts: RowCounts, device: torch.device) -> dict[str, float]:
    """What a step cost, and what has become of the rows so far: metrics of every algorithm."""
    return {
        "tokens_per_second": num_tokens / seconds,
        "peak_memory_bytes": peak_memory_bytes(device),
        "num_rows_skipped": counts.skipped,
        "num_rows_dropped": counts.dropped + counts.untrained,
        "num_rows_truncated": counts.truncated,
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: of the GPU when there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return machine.peak_memory_bytes()


class Stopwatch:
    """Seconds since the last reading."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def read(self) -> float:
        """Seconds since it was made or last read."""
        now = time.perf_counter()
        seconds, self._at = now - self._at, now
        return seconds
