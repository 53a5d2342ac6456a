"""Running out of memory, told by what was being done: `with during("the optimizer step"): ...`."""

import re
import traceback
from types import TracebackType
from typing import Self

from llmkit.errors import OutOfMemory, Work
from llmkit.formatting import format_bytes

TEXTS = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "std::bad_alloc", "Cannot allocate memory")
"""How PyTorch's allocators, CUDA's libraries and the operating system word it."""
ASKED = re.compile(r"tried to allocate ([\d.]+) ?(bytes|KiB|MiB|GiB|TiB)", re.IGNORECASE)
POWERS = {"bytes": 0, "kib": 1, "mib": 2, "gib": 3, "tib": 4}


class during:  # noqa: N801 - reads as a statement
    """Turn a lack of memory within the block into an `OutOfMemory` that says what the block is doing.

    The innermost block names it. What the failed call had in its variables is let go, so that there is room to save.
    """

    def __init__(self, work: Work, what: str) -> None:
        """
        Args:
            work: which settings matter.
            what: what is done and how large it is, to go on from "out of memory in".
        """
        self._work: Work = work
        self._what = what

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            return
        shortage = OutOfMemory(self._work, f"{self._what}{asked_for(error)}")
        traceback.clear_frames(trace)
        raise shortage from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that there is no memory left."""
    return _cause(error) is not None


def asked_for(error: BaseException) -> str:
    """`, where 1.2 GB more were asked for`; empty when the error does not tell."""
    found = ASKED.search(str(_cause(error) or ""))
    if found is None:
        return ""
    return f", where {format_bytes(float(found[1].rstrip('.')) * 1024 ** POWERS[found[2].lower()])} more were asked for"


def _cause(error: BaseException) -> BaseException | None:
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, MemoryError | OutOfMemory) or type(current).__name__ == "OutOfMemoryError":
            return current
        if isinstance(current, RuntimeError | OSError) and any(text in str(current) for text in TEXTS):
            return current
        current = current.__cause__ or current.__context__
    return None
