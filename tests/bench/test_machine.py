import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmkit.bench import machine
from llmkit.machine import peak_memory_bytes


def test_foreign_load_is_what_all_used_less_what_we_used(monkeypatch):
    # In 10 s of 4 cores, all used 14 s and we 10: others used 4 of 40.
    busy, own, now = iter([100.0, 114.0]), iter([50.0, 60.0]), iter([0.0, 10.0])
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    assert machine.ForeignLoad().share() == pytest.approx(0.1)


def test_foreign_load_is_unknown_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(machine, "_busy_seconds", lambda: None)
    assert machine.ForeignLoad().share() is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell what processes use")
def test_what_a_child_uses_is_our_own_while_it_runs_and_after():
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ninput()"
    before = machine._own_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        running = machine._own_seconds()
        child.communicate("\n")
    ended = machine._own_seconds()
    assert before is not None
    assert running is not None
    assert ended is not None
    assert running - before > 0.2
    assert ended - before > 0.2


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell what a process holds")
def test_held_memory_grows_by_what_is_taken():
    before = machine.held_memory_bytes()
    taken = bytearray(b"x" * 50_000_000)
    after = machine.held_memory_bytes()
    assert before is not None
    assert after is not None
    assert after - before > 40_000_000
    assert peak_memory_bytes() >= after - 1_000_000
    del taken


def test_a_process_name_with_brackets_and_spaces_is_no_trap(tmp_path):
    fields = ["S", "17", *["0"] * 9, "3", "4", "5", "6", *["0"] * 30]
    (tmp_path / "stat").write_text(f"42 (a) b (c)) {' '.join(fields)}\n")
    assert machine._times(tmp_path) == (17, 18)


def test_limits_are_positive(monkeypatch):
    monkeypatch.setattr(machine, "SECONDS_PER_LIMIT", 0.01)
    monkeypatch.setattr(machine, "MATRIX", 64)
    monkeypatch.setattr(machine, "COPIED_BYTES", 1 << 20)
    assert machine.gemm_gflops() > 0
    assert machine.memory_gbps() > 0


def test_the_best_of_several_runs_counts(monkeypatch):
    # The first call warms up; then runs of 0.3, 0.1 and 0.2 s until the deadline at 0.55 s has passed.
    clock = iter([0.0, 0.0, 0.0, 0.3, 0.3, 0.3, 0.4, 0.4, 0.4, 0.6, 0.6])
    monkeypatch.setattr(machine, "SECONDS_PER_LIMIT", 0.55)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert machine.best_seconds(lambda: None) == pytest.approx(0.1)
