"""Run Python programs that nobody has read."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llmkit.errors import ConfigError
from llmkit.rollout.sandbox.call_filter import call_filter
from llmkit.rollout.sandbox.config import SandboxConfig

JAIL = Path(__file__).with_name("jail.py")
SYSTEM_PATHS = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.conf")
BYTES_PER_CHAR = 4
CHUNK = 1 << 16
NO_ISOLATION = (
    "Code cannot be isolated here: {why}. Allow unprivileged user namespaces (sysctl user.max_user_namespaces, "
    "kernel.apparmor_restrict_unprivileged_userns=0; in a container also --security-opt seccomp=unconfined), or run it "
    "with limits alone: allow_unisolated=true. `llmkit doctor` shows what is active."
)


@dataclass(frozen=True)
class Ran:
    """What came of a program.

    Attributes:
        exit_code: 0 when all went well, minus the number of the signal that ended it.
        stdout: what it printed, cut where it was too much.
        stderr: likewise.
        timed_out: whether its time, or its processor time, was over before it ended.
    """

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool = False


class Sandbox:
    """Runs programs side by side within limits; used from one event loop.

    Attributes:
        problem: why programs are not isolated, once that was found out; empty when they are.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self._config = config
        self._slots = asyncio.Semaphore(config.max_running or os.cpu_count() or 1)
        self.problem = ""

    async def start(self) -> None:
        """Find out whether programs can be isolated.

        Raises:
            ConfigError: they cannot, and that is not allowed.
        """
        await self.run("")

    async def run(self, code: str, stdin: str = "") -> Ran:
        """Run a program.

        Args:
            code: of a script.
            stdin: what it may read.
        Raises:
            ConfigError: it cannot be isolated, and that is not allowed.
        """
        async with self._slots:
            if not self.problem:
                try:
                    return await self._run(code, stdin, isolate=True)
                except _NoIsolationError as error:
                    if not self._config.allow_unisolated:
                        raise ConfigError(NO_ISOLATION.format(why=error)) from None
                    self.problem = str(error)
            return await self._run(code, stdin, isolate=False)

    async def _run(self, code: str, stdin: str, *, isolate: bool) -> Ran:
        with tempfile.TemporaryDirectory(prefix="llmkit-sandbox-", ignore_cleanup_errors=True) as directory:
            root, work, job = Path(directory, "root"), Path(directory, "work"), Path(directory, "job.json")
            root.mkdir()
            work.mkdir()
            job.write_text(json.dumps(self._job(code, str(root), isolate)), encoding="utf-8")
            reading, writing = os.pipe()
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-I", "-S", str(JAIL), str(job), str(os.getpid()), str(writing)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    cwd=work,
                    env={},
                    pass_fds=(writing,),
                    start_new_session=True,
                )
            finally:
                os.close(writing)
            with os.fdopen(reading, "rb") as status:
                return await self._watch(process, stdin, status)

    async def _watch(self, process: asyncio.subprocess.Process, stdin: str, status: Any) -> Ran:
        """Feed the program and collect what it says until it ends or its time is over."""
        most = self._config.max_output_chars * BYTES_PER_CHAR
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        streams = [asyncio.ensure_future(_read(stream, most)) for stream in (process.stdout, process.stderr)]
        feeding = asyncio.ensure_future(_feed(process.stdin, stdin.encode()))
        timed_out = False
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # The kernel ends what is in the jail with it, and that closes the streams.
            await process.wait()
            feeding.cancel()
            out, err = [await stream for stream in streams]
        told: dict[str, Any] = {}
        for line in status.read().splitlines():
            told |= json.loads(line)
        if "error" in told:
            raise _NoIsolationError(told["error"])
        code = told.get("exit", -signal.SIGKILL)
        texts = (data.decode(errors="replace")[: self._config.max_output_chars] for data in (out, err))
        return Ran(code, *texts, timed_out=timed_out or (code < 0 and told.get("timed_out", False)))

    def _job(self, code: str, root: str, isolate: bool) -> dict[str, Any]:
        config = self._config
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
        return {
            "isolate": isolate,
            "root": root,
            "readable": readable_paths(),
            "python": sys.executable,
            "environment": environment | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            "code": code,
            "call_filter": call_filter().hex(),
            "cpu_seconds": config.cpu_seconds,
            "max_memory_mib": config.max_memory_mib,
            "max_processes": config.max_processes,
            "max_file_mib": config.max_file_mib,
        }


class _NoIsolationError(Exception):
    """The jail could not be built; the message says why."""


@cache
def readable_paths() -> list[str]:
    """What a program may read: the system's libraries, this Python and the packages of its environment."""
    packages = (path for path in sys.path if Path(path).name in ("site-packages", "dist-packages"))
    executable = Path(sys.executable)
    wanted = [*SYSTEM_PATHS, sys.base_prefix, sys.prefix, str(executable.resolve().parent.parent), *packages]
    found: list[str] = []
    for path in sorted({os.path.normpath(path) for path in wanted if os.path.lexists(path)}, key=len):
        if path != "/" and not any(path == other or path.startswith(f"{other}/") for other in found):
            found.append(path)
    return found


async def _read(stream: asyncio.StreamReader, most: int) -> bytes:
    """The stream to its end, of which `most` bytes are kept."""
    kept = bytearray()
    while data := await stream.read(CHUNK):
        kept += data[: most - len(kept)]
    return bytes(kept)


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
        stream.close()
        await stream.wait_closed()
