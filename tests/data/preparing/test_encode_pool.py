import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from llmkit.data.preparing.encode_pool import CHUNKS_AHEAD, encode_rows
from llmkit.errors import ConfigError, DataError, TrainingError
from llmkit.types import Record, Source

FAKES = Path(__file__).parent.parent / "fakes"


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    monkeypatch.syspath_prepend(str(FAKES))


def tools(**options):
    from character_encoding import CharacterEncoder, TextFormatter

    return TextFormatter(), CharacterEncoder(**options)


def rows(*texts):
    from character_encoding import rows

    return rows(*texts)


def texts(results):
    return [
        str(result) if isinstance(result, DataError) else ["".join(map(chr, item.token_ids)) for item in result.items]
        for result in results
    ]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_rows(num_workers):
    words = [f"row {index}" for index in range(50)]
    results = encode_rows(iter(rows(*words)), *tools(), num_workers=num_workers, chunk_rows=4)
    assert texts(results) == [[word] for word in words]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_kind_of_row_keeps_its_place(num_workers):
    unreadable = DataError("train.jsonl:2: not JSON")
    record = Record((), Source("train.jsonl", 6), text="a record")
    given = [*rows("one"), unreadable, *rows(3, "faulty", "too long a text"), record]
    results = list(encode_rows(given, *tools(max_length=10), num_workers=num_workers, chunk_rows=4))
    assert texts(results) == [
        ["one"],
        "train.jsonl:2: not JSON",
        "train.jsonl:1: 'text' must be text",
        "train.jsonl:2: faulty",
        [],
        ["a record"],
    ]
    assert results[4].outcome == "dropped"
    assert results[5].items[0].source == record.source


@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_rows_give_no_results(num_workers):
    assert list(encode_rows([], *tools(), num_workers=num_workers)) == []


@pytest.mark.parametrize(("num_workers", "most_chunks"), [(0, 1), (1, CHUNKS_AHEAD), (2, 2 * CHUNKS_AHEAD)])
def test_rows_are_read_a_few_chunks_ahead_and_no_further(num_workers, most_chunks):
    read = []

    def endless():
        number = 0
        while True:
            read.append(number)
            yield from rows(f"row {number}")
            number += 1

    results = encode_rows(endless(), *tools(), num_workers=num_workers, chunk_rows=5)
    assert read == []
    with closing(results):
        next(results)
        assert len(read) == 5 * most_chunks
        for _ in range(5):
            next(results)
        assert len(read) == 5 * (most_chunks + 1)


def test_each_chunk_is_one_call_and_the_processes_take_turns(tmp_path):
    log = tmp_path / "calls"
    list(encode_rows(rows(*"abcdefghij"), *tools(log=str(log)), num_workers=2, chunk_rows=3))
    calls = [line.split() for line in log.read_text().splitlines()]
    assert sorted(int(num_rows) for _, _, num_rows in calls) == [1, 3, 3, 3]
    assert len({pid for pid, _, _ in calls}) == 2
    assert str(os.getpid()) not in {pid for pid, _, _ in calls}
    assert {parallel for _, parallel, _ in calls} == {"false"}, "tokenizers must not start threads in each process"


def test_a_small_job_starts_no_more_processes_than_it_has_chunks(tmp_path):
    log = tmp_path / "calls"
    list(encode_rows(rows(*"abcd"), *tools(log=str(log)), num_workers=30, chunk_rows=2))
    assert len({line.split()[0] for line in log.read_text().splitlines()}) == 2


def test_chunks_and_results_larger_than_a_pipe_do_not_wait_for_each_other():
    # A pipe holds 64 KiB or some more; here both directions hold 8 MB at a time.
    words = [letter * 1_000_000 for letter in "abcdefgh"]
    results = encode_rows(rows(*words), *tools(max_length=2_000_000), num_workers=1, chunk_rows=4)
    assert [result.num_tokens for result in results] == [1_000_000] * 8


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bug_is_raised_as_it_is(num_workers):
    with pytest.raises(ZeroDivisionError, match="a bug of ours") as caught:
        list(encode_rows(rows("a", "bug"), *tools(), num_workers=num_workers))
    if num_workers:
        (note,) = caught.value.__notes__
        assert "character_encoding.py" in note, "the trace of the other process is part of what is shown"


def test_a_process_that_is_killed_is_an_error_that_says_what_to_do():
    with pytest.raises(TrainingError, match=r"SIGKILL.*memory.*data\.num_workers=0"):
        list(encode_rows(rows("a", "die", "b"), *tools(), num_workers=2, chunk_rows=1))


def test_what_cannot_be_pickled_is_refused_before_a_process_starts():
    formatter, encoder = tools()
    formatter.read = lambda row: row
    with pytest.raises(ConfigError, match=r"TextFormatter.*--set data\.num_workers=0"):
        list(encode_rows(rows("a"), formatter, encoder, num_workers=1))
    with pytest.raises(ConfigError, match=r"the rows cannot be sent.*--set data\.num_workers=0"):
        list(encode_rows(rows(lambda: 0), *tools(), num_workers=1))
    assert texts(encode_rows(rows("a"), formatter, encoder, num_workers=0)) == [["a"]]


def test_closing_ends_the_processes_even_when_they_hang(tmp_path):
    log = tmp_path / "calls"
    results = encode_rows(rows("a", "hang", "b", "hang"), *tools(log=str(log)), num_workers=2, chunk_rows=1)
    next(results)
    wait_until(lambda: len(log.read_text().splitlines()) >= 2)
    pids = {int(line.split()[0]) for line in log.read_text().splitlines()}
    closing_thread = Thread(target=results.close)
    closing_thread.start()
    closing_thread.join(10)
    assert not closing_thread.is_alive()
    assert not any(map(is_running, pids))


ENCODE_FOREVER = """
import itertools, sys
from character_encoding import CharacterEncoder, TextFormatter, row
from llmkit.data.preparing.encode_pool import encode_rows

if __name__ == "__main__":
    endless = (row("text") for _ in itertools.count())
    for _ in encode_rows(endless, TextFormatter(), CharacterEncoder(log=sys.argv[1]), num_workers=2):
        pass
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_processes_end_with_the_one_that_started_them(how, tmp_path):
    log, script = tmp_path / "calls", tmp_path / "encode_forever.py"
    script.write_text(ENCODE_FOREVER)
    log.write_text("")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKES), *sys.path])}
    parent = subprocess.Popen(
        [sys.executable, script, log],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Jobs in the background of a shell ignore SIGINT, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pids = lambda: {int(line.split()[0]) for line in log.read_text().splitlines()}  # noqa: E731
    wait_until(lambda: len(pids()) == 2)
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does it: to all processes at once
    else:
        parent.send_signal(how)
    _, said = parent.communicate(timeout=30)
    wait_until(lambda: not any(map(is_running, pids())))
    # One trace, of the process that was interrupted, and none of those that it started.
    assert said.count("Traceback") == (1 if how == signal.SIGINT else 0), said
