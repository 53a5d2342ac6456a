"""Workers are real processes here."""

import os
import sys
from pathlib import Path

import pytest

from llmkit.bench.machine import usable_cores
from llmkit.bench.worker import Worker, peer
from llmkit.errors import BenchError

SERVE = """
import os
from llmkit.bench.peers.serving import serve

def prepare(settings):
    print("what a library prints is no answer")
    if settings.get("fail"):
        raise ValueError("no such rows")
    def cores():
        return {"cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else settings["cores"]}
    def environment():
        return {name: os.environ.get(name) for name in settings["names"]}
    def die():
        os.write(2, b"out of luck")
        os._exit(3)
    def loud():
        print("printed")
        return {"loud": True}
    return {"cores": cores, "environment": environment, "die": die, "loud": loud, "raise": lambda: 1 / 0}

serve(prepare)
"""
NAMES = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "LLMKIT_CACHE", "TMPDIR")
PROGRAM = [sys.executable, "-c", SERVE]


@pytest.fixture
def core() -> int:
    return usable_cores()[-1]


@pytest.fixture
def worker(tmp_path: Path, core: int):
    with Worker("ours", PROGRAM, {"names": NAMES}, [core], tmp_path) as started:
        yield started


def test_a_worker_runs_on_its_core_alone(worker, core):
    assert worker.ask("cores") == {"cores": [core]}


def test_threads_and_caches_are_the_benchmarks(worker, tmp_path):
    assert worker.ask("environment") == {
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "LLMKIT_CACHE": str(tmp_path / "llmkit"),
        "TMPDIR": str(tmp_path),
    }


def test_what_is_printed_does_not_disturb_the_answers(worker):
    assert worker.ask("loud") == {"loud": True}
    assert worker.ask("loud") == {"loud": True}


def test_a_task_that_fails_says_why_and_where(worker):
    with pytest.raises(BenchError, match=r"ours: ZeroDivisionError: division by zero \(<string>:\d+\)"):
        worker.ask("raise")


def test_a_worker_that_dies_is_told_of_with_its_last_words(worker):
    with pytest.raises(BenchError, match=r"(?s)ours: it ended with exit code 3\n.*  out of luck$"):
        worker.ask("die")


def test_a_worker_that_has_died_is_not_asked_in_vain(worker):
    with pytest.raises(BenchError):
        worker.ask("die")
    with pytest.raises(BenchError, match="it ended with exit code 3"):
        worker.ask("loud")


def test_a_worker_that_cannot_prepare_says_why(tmp_path, core):
    with pytest.raises(BenchError, match="ours: ValueError: no such rows"):
        Worker("ours", PROGRAM, {"fail": True}, [core], tmp_path)


def test_a_program_that_is_not_there(tmp_path, core):
    with pytest.raises(BenchError, match="trl: /no/such/python cannot be started: No such file or directory"):
        Worker("trl", peer("trl_sft", Path("/no/such/python")), {}, [core], tmp_path)


def test_an_environment_without_the_library_is_told_of(tmp_path, core):
    with pytest.raises(BenchError, match="trl: ModuleNotFoundError: No module named 'trl'"):
        Worker("trl", peer("trl_packing"), {}, [core], tmp_path)


def test_nothing_is_left_behind(tmp_path, core):
    with Worker("ours", PROGRAM, {}, [core], tmp_path) as started:
        process = started._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
