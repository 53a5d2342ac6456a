import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from llmkit.engines.servers.guarded import GuardedProcess, describe_exit
from llmkit.errors import EngineError

from .conftest import Nursery, crash, get, lives, wait_for


def test_a_server_becomes_ready_and_ends_when_asked(nursery: Nursery):
    server = nursery.started("comes late")
    assert server.failure is None
    assert server.num_starts == 1
    get(server.command.url)
    nursery.stop_all()
    assert not any(map(lives, nursery.processes()))
    assert any("opening its port" in line for line in nursery.told)
    assert f"ready at {server.command.url}" in nursery.told[-1]


def test_a_server_that_ends_at_its_start_says_what_it_did_and_shows_its_log(nursery: Nursery):
    server = nursery.started("crashes")
    assert server.num_starts == 1
    failure = server.failure
    assert failure is not None
    assert "ended while loading weights" in failure
    assert "exit code 3. Bring it home first" in failure
    assert str(nursery.log) in failure
    assert "  | ValueError: the tokenizer is of another planet" in failure


@pytest.mark.parametrize("fault", ["hangs", "never ready"])
def test_a_server_that_does_not_become_ready_in_time_is_ended_and_named(nursery: Nursery, fault):
    server = nursery.started(fault, start_seconds=1.0)
    assert "did not answer within engine.start_seconds=1" in (server.failure or "")
    nursery.stop_all()
    assert not any(map(lives, nursery.processes()))


def test_whoever_waits_for_a_server_hears_when_its_watch_breaks(nursery: Nursery):
    class Closed(list):
        def append(self, line: str) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    nursery.told = Closed()
    server = nursery.started()
    assert "is not looked after any more: BrokenPipeError: [Errno 32] Broken pipe" in (server.failure or "")
    assert not any(map(lives, nursery.processes() if nursery.pids.exists() else []))


def test_a_program_that_is_not_there_is_named(nursery: Nursery):
    server = nursery.started(command=replace(nursery.command(), arguments=("/no/such/program",)))
    assert "exit code 127" in (server.failure or "")
    assert "/no/such/program cannot be started: No such file or directory" in (server.failure or "")


def test_a_server_that_ignores_sigterm_is_killed_with_all_that_it_started(nursery: Nursery):
    nursery.started("ignores SIGTERM", "has children", stop_seconds=0.3)
    processes = nursery.processes()
    assert len(processes) == 3
    assert all(map(lives, processes))
    nursery.stop_all()
    assert not any(map(lives, processes))
    assert "did not end within 0.3 s and is killed" in nursery.log.read_text()


def test_children_that_left_the_tree_end_with_a_server_that_crashes(nursery: Nursery):
    server = nursery.started("has children", max_restarts=0)
    first = nursery.processes()
    crash(server.command.url)
    wait_for(lambda: server.failure, "the failure")
    assert not any(map(lives, first))
    assert "SIGKILL, which the system sends when memory runs out" in (server.failure or "")


def test_a_guard_that_is_killed_leaves_nothing_of_its_server(nursery: Nursery):
    server = nursery.started("has children", max_restarts=0)
    first = nursery.processes()
    (guard,) = [one.pid for one in psutil.Process().children() if str(nursery.pids) in one.cmdline()]
    os.kill(guard, signal.SIGKILL)
    wait_for(lambda: server.failure, "the failure")
    assert not any(map(lives, first))


def test_a_server_that_crashes_is_started_again_at_its_address(nursery: Nursery):
    server = nursery.started()
    crash(server.command.url)
    wait_for(lambda: server.num_starts == 2, "the second start")
    wait_for(lambda: len([line for line in nursery.told if "ready" in line]) == 2, "being ready again")
    get(server.command.url)
    assert server.failure is None
    assert any("starting it again in" in line for line in nursery.told)


def test_a_server_that_keeps_crashing_is_given_up(nursery: Nursery):
    server = nursery.started("once", max_restarts=2)
    crash(server.command.url)
    wait_for(lambda: server.failure, "the failure")
    assert server.num_starts == 3
    assert "exit code 4 (started again 2 times within an hour)" in (server.failure or "")


def test_a_log_that_cannot_be_written_is_named(nursery: Nursery, tmp_path: Path):
    with pytest.raises(EngineError, match=r"No such file or directory; set engine\.log_dir"):
        GuardedProcess(nursery.command(), tmp_path / "no" / "such.log", 1.0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_llmkit_is_killed(nursery: Nursery, tmp_path: Path, number):
    script = f"""
        import sys, time
        from pathlib import Path
        from llmkit.engines.servers.command import Command
        from llmkit.engines.servers.guarded import GuardedProcess
        process = GuardedProcess(Command({nursery.command("has children").arguments!r}, {{}}, "", ""), Path({str(nursery.log)!r}), 10.0)
        print(process.pid, flush=True)
        time.sleep(600)
    """  # noqa: E501
    llmkit = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert llmkit.stdout is not None
    with llmkit, llmkit.stdout:
        guard = int(llmkit.stdout.readline())
        wait_for(lambda: "opening" in nursery.log.read_text(), "the server")
        processes = [guard, *nursery.processes()]
        assert all(map(lives, processes))
        llmkit.send_signal(number)
        llmkit.wait()
    wait_for(lambda: not any(map(lives, processes)), "their end")


def test_a_fork_that_outlives_llmkit_does_not_keep_its_servers(nursery: Nursery):
    # The fork holds the pipe to the guard open; the guard sees that its parent has gone all the same.
    script = f"""
        import os, time
        from pathlib import Path
        from llmkit.engines.servers.command import Command
        from llmkit.engines.servers.guarded import GuardedProcess
        process = GuardedProcess(Command({nursery.command().arguments!r}, {{}}, "", ""), Path({str(nursery.log)!r}), 10.0)
        fork = os.fork()
        if fork == 0:
            time.sleep(600)
        print(process.pid, fork, flush=True)
        time.sleep(600)
    """  # noqa: E501
    llmkit = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert llmkit.stdout is not None
    with llmkit, llmkit.stdout:
        guard, fork = map(int, llmkit.stdout.readline().split())
        wait_for(lambda: "opening" in nursery.log.read_text(), "the server")
        processes = [guard, *nursery.processes()]
        llmkit.kill()
        llmkit.wait()
        try:
            assert lives(fork)
            wait_for(lambda: not any(map(lives, processes)), "their end")
        finally:
            os.kill(fork, signal.SIGKILL)


def test_a_server_ends_with_its_guard(nursery: Nursery):
    process = GuardedProcess(nursery.command(), nursery.log, 10.0)
    wait_for(lambda: "opening" in nursery.log.read_text(), "the server")
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: process.exit_code() is not None, "the guard's end")
    assert process.exit_code() == 137
    wait_for(lambda: not any(map(lives, nursery.processes())), "the server's end")
    process.wait()


@pytest.mark.parametrize(("code", "text"), [(1, "exit code 1"), (139, "SIGSEGV"), (200, "exit code 200")])
def test_an_exit_code_in_words(code, text):
    assert describe_exit(code) == text
