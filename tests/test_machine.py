import os
import subprocess
import sys

from llmkit import machine


def test_busy_cores_are_the_ticks_of_all_processes_over_the_time(monkeypatch):
    ticks = iter([1000, 1000 + 3 * os.sysconf("SC_CLK_TCK")])
    monkeypatch.setattr(machine, "_busy_ticks", lambda: next(ticks))
    monkeypatch.setattr(machine, "SAMPLE_SECONDS", 0.001)
    assert machine.busy_cores() == 3000


def test_what_the_system_does_not_tell_is_unknown(monkeypatch):
    monkeypatch.setattr(machine, "_read", lambda path: "")
    monkeypatch.setattr(machine, "SAMPLE_SECONDS", 0.001)
    assert machine.busy_cores() is None
    assert machine.processor_flags() == []
    assert machine.memory()["available"] is None


def test_memory_and_its_limit_are_bytes(monkeypatch):
    files = {"/proc/meminfo": "MemTotal: 8 kB\nMemAvailable: 4 kB\n", "/sys/fs/cgroup/memory.max": "2048\n"}
    monkeypatch.setattr(machine, "_read", files.__getitem__)
    assert machine.memory()["available"] == 4096
    assert machine.memory()["container_limit"] == 2048


def test_a_container_without_a_limit_has_none(monkeypatch):
    files = {"/proc/meminfo": "", "/sys/fs/cgroup/memory.max": "max\n"}
    monkeypatch.setattr(machine, "_read", files.__getitem__)
    assert machine.memory()["container_limit"] is None


def test_instruction_sets_are_whole_words(monkeypatch):
    monkeypatch.setattr(machine, "_read", lambda path: "processor : 0\nflags\t\t: fpu avx2 avx512_bf16x\n")
    assert machine.processor_flags() == ["avx2"]


def test_a_directory_that_is_not_there_yet_has_the_space_of_its_parent(tmp_path):
    found = machine.disk(tmp_path / "not" / "yet")
    assert found["free"] > 0
    assert found["writable"]
    assert not (tmp_path / "not").exists()


def test_a_compiler_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert machine.compiler() is None


def test_the_peak_is_that_of_this_process_and_not_of_who_started_it():
    held = bytearray(400_000_000)
    held[::4096] = b"x" * len(held[::4096])
    code = "from llmkit import machine; print(machine.peak_memory_bytes())"
    peak = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 1_000_000 < peak < len(held) < machine.peak_memory_bytes()
