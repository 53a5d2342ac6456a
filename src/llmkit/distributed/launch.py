"""`--nproc`: the processes of a run on this machine, started, watched and ended together.

Each is the same command line with torchrun's environment variables. The first has the terminal; what the others say
goes to files, and is shown when one of them is the reason that the run failed. All of them end with this process,
however it ends: they hold one end of a pipe, and see it close.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from llmkit.distributed.place import LAUNCHED
from llmkit.errors import ProcessLostError

LIFELINE = "LLMKIT_LIFELINE"
"""File descriptor whose end tells a process that the one that started it is gone."""
SECONDS_TO_FOLLOW = 15.0
"""How long the others may take to end by themselves once one has failed."""
SECONDS_TO_STOP = 5.0
"""How long a process may take to end after it was told to."""
POLL_SECONDS = 0.05
SHOWN_LINES = 30


@dataclass
class Worker:
    """One process of the run.

    Attributes:
        rank: its number.
        process: itself.
        said: file with its standard error; None for the first, which has the terminal.
        stopped: whether it was this program that ended it.
    """

    rank: int
    process: subprocess.Popen[bytes]
    said: Path | None
    stopped: bool = False

    @property
    def code(self) -> int | None:
        """Its exit code; negative is a signal, None is running."""
        return self.process.poll()


def launch(arguments: Sequence[str], num_processes: int) -> int:
    """Run `llmkit` with these arguments in so many processes of this machine.

    Returns: the exit code of the run.
    """
    lifeline, held = os.pipe()
    with tempfile.TemporaryDirectory(prefix="llmkit-ranks-") as directory:
        workers: list[Worker] = []
        forward = _Forwarding(workers)
        try:
            port = _free_port()
            for rank in range(num_processes):
                environment = worker_environment(os.environ, rank, num_processes, port, lifeline)
                workers.append(_start(arguments, rank, environment, Path(directory), lifeline))
            os.close(lifeline)
            with forward:
                return _watch(workers)
        finally:
            _stop(workers)
            os.close(held)


def worker_environment(
    environ: Mapping[str, str], rank: int, num_processes: int, port: int, lifeline: int
) -> dict[str, str]:
    """Environment of one process: torchrun's variables, and its share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    return {
        "OMP_NUM_THREADS": str(threads),
        **environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        LAUNCHED: str(os.getpid()),
        LIFELINE: str(lifeline),
    }


def follow_lifeline() -> None:
    """In a process that `launch` started: end at once when the one that started it is gone."""
    descriptor = os.environ.get(LIFELINE)
    if descriptor is None:
        return
    os.set_inheritable(int(descriptor), False)

    def wait() -> None:
        # Nobody writes into it: reading returns when the last holder of the other end is gone.
        os.read(int(descriptor), 1)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _start(
    arguments: Sequence[str], rank: int, environment: Mapping[str, str], directory: Path, lifeline: int
) -> Worker:
    said = directory / f"rank-{rank}.txt" if rank else None
    # A session of its own: Ctrl-C in a terminal goes to this program alone, which passes it on once.
    with said.open("wb") if said else open(os.devnull, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmkit", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL if said else None,
            stdout=output if said else None,
            stderr=output if said else None,
            pass_fds=[lifeline],
            start_new_session=True,
        )
    return Worker(rank, process, said)


def _watch(workers: Sequence[Worker]) -> int:
    """Until all have ended; when one fails, the others follow it or are ended."""
    deadline: float | None = None
    first: Worker | None = None
    while any(worker.code is None for worker in workers):
        failed = [worker for worker in workers if worker.code]
        if failed and deadline is None:
            first, deadline = failed[0], time.monotonic() + SECONDS_TO_FOLLOW
        if deadline is not None and time.monotonic() > deadline:
            _stop(workers)
        time.sleep(POLL_SECONDS)
    return _conclude(workers, first)


def _conclude(workers: Sequence[Worker], first: Worker | None) -> int:
    """The exit code of the run; says what failed unless the first process has said it."""
    guilty = [worker for worker in workers if worker.code not in (0, ProcessLostError.exit_code) and not worker.stopped]
    main = workers[0]
    if main in guilty and main.code is not None and main.code > 0:
        return main.code
    failed = first if first in guilty else next(iter(guilty), None)
    if failed is None:
        return 1 if any(worker.code for worker in workers) else 0
    print(describe_failure(failed, len(workers)), file=sys.stderr)
    return failed.code if failed.code is not None and failed.code > 0 else 1


def describe_failure(worker: Worker, num_processes: int) -> str:
    """Which process failed, how, and what it said last."""
    code = worker.code
    assert code is not None
    which = f"process {worker.rank} of {num_processes} (rank {worker.rank}, pid {worker.process.pid})"
    if code < 0:
        kills = " (out of memory?)" if code == -signal.SIGKILL else ""
        how = f"was ended by {signal.Signals(-code).name}{kills}"
    else:
        how = f"failed with exit code {code}"
    said = worker.said.read_text(errors="replace").splitlines()[-SHOWN_LINES:] if worker.said else []
    lines = [f"error: {which} {how}; the others were ended. Go on from the last checkpoint with --resume"]
    return "\n".join([*lines, *(f"  rank {worker.rank}: {line}" for line in said)])


def _stop(workers: Sequence[Worker]) -> None:
    """End those that are still running: they may be waiting for one another, so hardly anything is asked of them."""
    running = [worker for worker in workers if worker.code is None]
    for worker in running:
        worker.stopped = True
        worker.process.terminate()
    deadline = time.monotonic() + SECONDS_TO_STOP
    for worker in running:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


class _Forwarding:
    """Within it SIGINT and SIGTERM go to the processes of the run."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers

    def __enter__(self) -> None:
        self._former = {number: signal.signal(number, self._pass_on) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        for worker in self._workers:
            if worker.process.returncode is None:
                worker.process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
