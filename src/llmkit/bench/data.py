"""`llmkit bench data`: its parts, one after another, and what else the machine did meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmkit.bench import packing, row_files, starting, streaming, tokenizing
from llmkit.bench.machine import ForeignLoad
from llmkit.bench.material import Material, make_material
from llmkit.bench.results import Findings
from llmkit.bench.setup import Setup, open_setup
from llmkit.bench.table import show_part
from llmkit.errors import BenchError
from llmkit.terminal import stderr_console

ROWS_TO_TOKENIZE = 5000
ROWS_TO_START_WITH = 100_000
ROWS_TO_CONVERT = 200_000


@dataclass(frozen=True)
class DataBench:
    """What to measure.

    Attributes:
        path: the user's chats; None makes some up.
        model: whose tokenizer to use; None trains one.
        parts: of `tokenize`, `packing`, `start`, `streaming`, `convert`.
        trl_python: interpreter of an environment with TRL; None leaves TRL out.
        rows: chats to tokenize, to start with and to convert; None takes a number for each that takes a while.
        num_lengths: lengths to pack.
        stream_megabytes: size of the file to stream.
        repeats: runs of each contender that count.
        threads: cores and threads that each contender has.
        accents: share of made-up words that ASCII cannot write.
    """

    path: Path | None
    model: str | None
    parts: tuple[str, ...]
    trl_python: Path | None
    rows: int | None
    num_lengths: int
    stream_megabytes: int
    repeats: int
    threads: int
    accents: float


def measure(request: DataBench) -> dict[str, Any]:
    """Measure what is asked for and show it on standard error.

    Returns: the JSON document.
    Raises:
        ConfigError: there are fewer cores than threads.
        DataError, ModelError: the chats or the tokenizer cannot be used.
        BenchError: a contender failed, or contenders made different things of the same rows.
    """
    findings = Findings()
    with open_setup(request.threads, request.repeats, request.trl_python) as setup:
        try:
            for part, run in _parts(request, setup):
                findings.add(_measure_part(part, run))
        except OSError as error:
            raise BenchError(
                f"{setup.directory}: {error.strerror or error}; set TMPDIR to a directory with more room, or measure "
                "less"
            ) from error
        return setup.document("bench data", findings)


def _parts(request: DataBench, setup: Setup) -> list[tuple[str, Callable[[], Findings]]]:
    """What to run, in order; the chats are made when the first part that needs them is."""
    made: list[Material] = []

    def material() -> Material:
        if not made:
            num_rows = request.rows or ROWS_TO_TOKENIZE
            if "tokenize" not in request.parts:  # the others repeat them
                num_rows = min(num_rows, ROWS_TO_TOKENIZE)
            made.append(make_material(request.path, request.model, num_rows, setup.directory, request.accents))
        return made[0]

    parts: dict[str, Callable[[], Findings]] = {
        "tokenize": lambda: tokenizing.measure(material(), setup),
        "packing": lambda: packing.measure(request.num_lengths, setup),
        "start": lambda: starting.measure(material(), request.rows or ROWS_TO_START_WITH, setup),
        "streaming": lambda: streaming.measure(material(), request.stream_megabytes, setup),
        "convert": lambda: row_files.measure(material(), request.rows or ROWS_TO_CONVERT, setup),
    }
    return [(part, run) for part, run in parts.items() if part in request.parts]


def _measure_part(part: str, run: Callable[[], Findings]) -> Findings:
    """Run one part, with the load of others while it ran."""
    stderr_console().print(f"Measuring {part} ...")
    load = ForeignLoad()
    found = run()
    share = load.share()
    found.results = [replace(one, metrics={**one.metrics, "foreign_load": share}) for one in found.results]
    show_part(part, found)
    return found
