"""Programs that try everything; each test fails when the protection is taken away."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from llmkit.errors import ConfigError
from llmkit.rollout.sandbox import sandbox as module
from llmkit.rollout.sandbox.config import SandboxConfig
from llmkit.rollout.sandbox.protections import find_protections
from llmkit.rollout.sandbox.sandbox import Ran, Sandbox

PROTECTIONS = find_protections()
isolated = pytest.mark.skipif(bool(PROTECTIONS.problem), reason=f"no isolation here: {PROTECTIONS.problem}")


def run(code: str, stdin: str = "", **limits: Any) -> Ran:
    return asyncio.run(Sandbox(SandboxConfig.model_validate({"timeout_seconds": 30, **limits})).run(code, stdin))


@isolated
class TestPrograms:
    def test_one_that_works_says_what_it_has_to_say(self):
        ran = run("import sys\nprint(sys.stdin.read().upper())\nprint('oh', file=sys.stderr)", "hello")
        assert (ran.exit_code, ran.stdout, ran.stderr, ran.timed_out) == (0, "HELLO\n", "oh\n", False)

    def test_one_that_fails_says_why(self):
        ran = run("1 / 0")
        assert ran.exit_code == 1
        assert ran.stderr.endswith("ZeroDivisionError: division by zero\n")

    def test_it_may_write_in_a_directory_that_goes_away(self):
        assert run("open('x', 'w').write('a'); print(open('/tmp/x').read())").stdout == "a\n"
        assert "FileNotFoundError" in run("open('x')").stderr

    def test_an_environment_below_the_directory_that_programs_write_in_is_seen(self):
        with TemporaryDirectory(dir="/tmp") as directory:  # which is where /tmp is another one in the sandbox
            environment = Path(directory) / "env"
            venv.create(environment, symlinks=True)
            script = (
                "import asyncio\nfrom llmkit.rollout.sandbox.sandbox import *\n"
                "print(asyncio.run(Sandbox(SandboxConfig()).run('import sys; print(sys.prefix)')).stdout)"
            )
            known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            ran = subprocess.run(
                [environment / "bin" / "python", "-c", script], env=known, capture_output=True, text=True, check=True
            )
            assert ran.stdout.strip() == str(environment)

    def test_many_run_side_by_side(self):
        async def together() -> list[Ran]:
            sandbox = Sandbox(SandboxConfig())
            return await asyncio.gather(*(sandbox.run(f"print({number})") for number in range(6)))

        assert [ran.stdout for ran in asyncio.run(together())] == [f"{number}\n" for number in range(6)]


@isolated
class TestHostilePrograms:
    def test_an_endless_loop_is_ended_by_the_clock(self):
        assert run("while True: pass", timeout_seconds=1).timed_out

    def test_an_endless_loop_is_ended_by_the_processor_time(self):
        assert run("while True: pass", cpu_seconds=1).timed_out

    def test_a_memory_bomb_gets_no_memory(self):
        assert "MemoryError" in run("a = []\nwhile True: a.append(bytearray(1 << 20))", max_memory_mib=128).stderr

    def test_a_fork_bomb_stays_small_and_leaves_nothing(self):
        before = _processes()
        ran = run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", timeout_seconds=2)
        assert ran.timed_out
        _wait_for_processes(before)

    def test_processes_that_it_leaves_behind_end_with_it(self):
        before = _processes()
        ran = run("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(3600)\nprint('parent')")
        assert ran.stdout == "parent\n"
        _wait_for_processes(before)

    def test_zombies_are_the_kernels_business(self):
        code = "import os\nfor _ in range(8):\n    if os.fork() == 0: os._exit(0)\nprint('done')"
        assert run(code).stdout == "done\n"

    def test_huge_output_is_cut(self):
        ran = run("import sys\nfor _ in range(2000): print('x' * 10_000)\nprint('y', file=sys.stderr)")
        assert (ran.exit_code, len(ran.stdout), ran.stderr) == (0, 20_000, "y\n")

    def test_there_is_no_network(self):
        code = "import socket\nsocket.create_connection(('{}', {}), timeout=5)"
        with _listening() as port:
            assert "Error" in run(code.format("127.0.0.1", port)).stderr
        assert "Network is unreachable" in run(code.format("192.0.2.1", 80)).stderr

    def test_files_of_the_machine_are_not_there(self, tmp_path: Path):
        secret = tmp_path / "secret"
        secret.write_text("42")
        assert "FileNotFoundError" in run(f"open({str(secret)!r})").stderr
        assert "FileNotFoundError" in run("open('/etc/passwd')").stderr
        assert "FileNotFoundError" in run("import os; os.listdir('/proc')").stderr

    @pytest.mark.parametrize("place", ["/x", "/usr/x", f"{sys.prefix}/x", "/dev/x"])
    def test_it_writes_nothing_outside_its_directory(self, place: str):
        stderr = run(f"open({place!r}, 'w')").stderr
        assert "Read-only file system" in stderr or "Permission denied" in stderr
        assert not Path(place).exists()

    def test_the_mounts_cannot_be_made_writable_again(self):
        code = "import ctypes; print(ctypes.CDLL(None).mount(None, b'/usr', None, 32 | 4096, None))"
        assert run(code).stdout == "-1\n"

    @pytest.mark.parametrize(
        "call",
        [
            "unshare(0x10000000)",  # CLONE_NEWUSER
            "ptrace(0, 0, 0, 0)",
            "mount(b'none', b'/tmp', b'tmpfs', 0, None)",
            "syscall(425, 1, 0)",  # io_uring_setup
            "syscall(442, 0, 0, 0, 0, 0)",  # mount_setattr
        ],
    )
    def test_calls_that_break_outs_begin_with_are_refused(self, call: str):
        code = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint(libc.{call}, ctypes.get_errno())"
        assert run(code).stdout == f"-1 {errno.EPERM}\n"

    def test_honest_programs_are_not_in_the_filters_way(self):
        code = (
            "import subprocess, sys, threading\n"
            "thread = threading.Thread(target=print, args=('thread',))\nthread.start()\nthread.join()\n"
            "print(subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, text=True).stdout)"
        )
        assert run(code).stdout == "thread\n42\n\n"

    def test_its_directory_is_small(self):
        code = "for n in range(64):\n    open(str(n), 'wb').write(bytes(1 << 20))"
        assert "No space left" in run(code, max_file_mib=2).stderr
        assert "File too large" in run("open('x', 'wb').write(bytes(3 << 20))", max_file_mib=2).stderr

    def test_secrets_of_the_environment_do_not_come_in(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        assert "sk-secret" not in run("import os; print(dict(os.environ))").stdout

    def test_it_can_signal_nobody_outside(self):
        code = f"import os, signal\nos.kill({os.getpid()}, signal.SIGTERM)"
        assert "ProcessLookupError" in run(code).stderr
        assert run("import os\nprint(os.getppid(), os.getpid())").stdout == "1 2\n"
        assert "ProcessLookupError" in run("import os, signal\nos.kill(-1, signal.SIGKILL)").stderr
        assert run("import os, signal\nos.kill(1, signal.SIGKILL)\nprint('alone')").stdout == "alone\n"

    def test_it_cannot_speak_for_the_jail(self):
        code = (
            'import os\nfor n in range(3, 64):\n    try: os.write(n, b\'{"error": "no"}\\n\')\n    except OSError: pass'
        )
        assert run(code).exit_code == 0

    def test_it_ends_with_a_run_that_is_killed(self, tmp_path: Path):
        before = _processes()
        script = (
            "import asyncio\nfrom llmkit.rollout.sandbox.sandbox import *\n"
            "asyncio.run(Sandbox(SandboxConfig(timeout_seconds=3600)).run('import time; time.sleep(3600)'))"
        )
        run = subprocess.Popen([sys.executable, "-c", script])
        try:
            _wait(lambda: len(_processes() - before) >= 3)  # at least
        finally:
            run.kill()
            run.wait()
        _wait_for_processes(before)


class TestWithoutIsolation:
    @pytest.fixture
    def refused(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A machine that grants no namespaces."""
        text = module.JAIL.read_text().replace("libc.unshare(", "-1 or libc.unshare(")
        jail = tmp_path / "jail.py"
        jail.write_text(text)
        monkeypatch.setattr(module, "JAIL", jail)

    def test_it_is_refused_with_the_way_out(self, refused: None):
        with pytest.raises(ConfigError, match=r"Code cannot be isolated here: .*allow_unisolated=true"):
            run("print(1)")

    def test_it_may_be_allowed_and_is_limited_all_the_same(self, refused: None):
        assert run("print(1)", allow_unisolated=True).stdout == "1\n"
        assert run("while True: pass", allow_unisolated=True, timeout_seconds=1).timed_out
        assert "MemoryError" in run("bytearray(1 << 30)", allow_unisolated=True, max_memory_mib=128).stderr


def test_protections_are_found_by_trying():
    names = {"processes", "network", "files", "memory", "fork limit", "system calls"}
    assert set(PROTECTIONS.holding) == names
    if not PROTECTIONS.problem:
        assert all(PROTECTIONS.holding.values())


def test_a_signal_that_ends_a_program_is_told():
    assert run("import os\nos.abort()", allow_unisolated=True).exit_code == -signal.SIGABRT


@contextmanager
def _listening() -> Iterator[int]:
    """A port at which somebody listens outside."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _processes() -> set[int]:
    """Jails, their programs, and scripts that use the sandbox."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"main.py" in line or b"jail.py" in line or b"llmkit.rollout.sandbox" in line:
                found.add(int(entry.name))
    return found


def _wait(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.05)


def _wait_for_processes(before: set[int]) -> None:
    _wait(lambda: not _processes() - before)
