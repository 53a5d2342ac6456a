import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmkit import plugins
from llmkit.config.schema import DataConfig, SFTDataConfig
from llmkit.data.encoders import SampleEncoder
from llmkit.data.preparing.encode_pool import encode_rows
from llmkit.data.preparing.prepared import GROUP, UNUSED_DAYS, prepare
from llmkit.data.row_errors import RowErrors
from llmkit.errors import DataError, SourceError, TrainingError
from llmkit.testing.tiny import tiny_codec
from llmkit.types import Row, Source

FAKES = Path(__file__).parent.parent / "fakes"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / GROUP


@pytest.fixture
def fakes(cache):
    import character_encoding

    return character_encoding


def words(prepared):
    return ["".join(map(chr, prepared[index].token_ids)) for index in range(len(prepared))]


def entries(cache):
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def run(fakes, dataset, *, config=DataConfig(), encoder=None, **options):  # noqa: B008 - frozen
    return prepare(dataset, fakes.TextFormatter(), encoder or fakes.CharacterEncoder(max_length=5), config, **options)


def test_items_keep_their_tokens_weights_and_places(fakes):
    prepared = run(fakes, fakes.Texts(["one", "three"]))
    assert len(prepared) == 2
    assert prepared[1] == fakes.sample("three", Source("train.jsonl", 2))
    assert prepared.lengths.tolist() == [3, 5]
    assert prepared.row_starts.tolist() == [0, 1, 2]
    # Three and five characters, of which each but the first of a text is trained.
    assert (prepared.counts.rows, prepared.counts.tokens, prepared.counts.trained_tokens) == (2, 8, 6)


def test_a_row_may_give_no_item_or_several(fakes):
    encoder = fakes.CharacterEncoder(max_length=4, split=True)
    prepared = run(fakes, fakes.Texts(["one", "", "seventeen", "two"]), encoder=encoder)
    assert words(prepared) == ["one", "seve", "ntee", "n", "two"]
    assert prepared.row_starts.tolist() == [0, 1, 1, 4, 5]
    assert prepared.counts.split == 1
    assert prepared[3].source == Source("train.jsonl", 3)
    dropped = run(fakes, fakes.Texts(["one", "too long", "two"]))
    assert words(dropped) == ["one", "two"]
    assert dropped.row_starts.tolist() == [0, 1, 1, 2]
    assert dropped.counts.dropped == 1


def test_a_pair_has_both_sides(fakes):
    prepared = run(fakes, fakes.Texts(["ab", "xyz"]), encoder=fakes.PairEncoder())
    assert len(prepared) == 2
    assert prepared.lengths.tolist() == [4, 6]
    assert prepared[1].chosen == fakes.sample("xyz", Source("train.jsonl", 2))
    assert prepared[1].rejected == fakes.sample("zyx", Source("train.jsonl", 2))


@pytest.mark.parametrize("index", [-1, 2])
def test_there_are_no_items_outside(fakes, index):
    with pytest.raises(IndexError):
        run(fakes, fakes.Texts(["ab", "xyz"]))[index]


def test_processes_give_the_same(fakes):
    texts = [f"r{index}" for index in range(200)]
    here = run(fakes, fakes.Texts(texts), config=DataConfig(cache=False))
    elsewhere = run(fakes, fakes.Texts(texts), config=DataConfig(cache=False, num_workers=2))
    assert words(here) == words(elsewhere) == texts


def test_the_second_time_nothing_is_read(fakes, capfd, cache):
    first = run(fakes, fakes.Texts(["one", "more", "two"]))
    assert capfd.readouterr().err == ""
    again = fakes.Texts(["one", "more", "two"])
    second = run(fakes, again)
    assert words(first) == words(second) == ["one", "more", "two"]
    assert second.counts == first.counts
    assert again.num_read == 2, "the first and the last row tell where the rows are from"
    assert capfd.readouterr().err == "Using 3 tokenized rows from the cache\n"
    assert len(entries(cache)) == 1


def test_a_copy_of_the_rows_names_its_own_places(fakes, cache):
    class Copied(fakes.Texts):
        def fingerprint(self):
            return "the contents alone"

    run(fakes, Copied(["one"], name="original.jsonl"))
    assert run(fakes, Copied(["one"], name="copy.jsonl"))[0].source.path == "copy.jsonl"
    assert len(entries(cache)) == 2


def test_other_rows_or_options_are_another_entry(fakes, cache):
    run(fakes, fakes.Texts(["one"]))
    assert words(run(fakes, fakes.Texts(["two"]))) == ["two"]
    run(fakes, fakes.Texts(["one"]), encoder=fakes.CharacterEncoder(max_length=6))
    run(fakes, fakes.Texts(["one"], name="test.jsonl"))
    assert len(entries(cache)) == 4
    run(fakes, fakes.Texts(["one"]), config=DataConfig(on_error="skip", num_workers=1))
    assert len(entries(cache)) == 4, "what changes no token does not make an entry"


@pytest.mark.parametrize("nameless", [True, False])
def test_what_is_not_kept_goes_with_the_object(fakes, cache, nameless, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dataset = (fakes.NamelessTexts if nameless else fakes.Texts)(["one", "two"])
    prepared = run(fakes, dataset, config=DataConfig(cache=nameless))
    (directory,) = tmp_path.glob("llmkit-data-*")
    assert words(prepared) == ["one", "two"]
    assert not cache.exists()
    del prepared
    gc.collect()
    assert not directory.exists()


def test_a_faulty_row_stops_the_run_and_leaves_nothing(fakes, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for config in (DataConfig(), DataConfig(cache=False)):
        with pytest.raises(DataError, match=r"train\.jsonl:2: 'text' must be text.*on_error=skip"):
            run(fakes, fakes.Texts(["one", 2, "three"]), config=config)
    assert entries(cache) == []
    assert not list(tmp_path.glob("llmkit-data-*"))


def test_skipped_rows_are_reported_again_when_the_cache_has_them(fakes, tmp_path):
    texts = ["one", DataError("train.jsonl:2: not JSON"), 3, "faulty", "five"]
    reports = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for report in reports:
        prepared = run(fakes, fakes.Texts(texts), config=DataConfig(on_error="skip"), report=report)
        assert words(prepared) == ["one", "five"]
        assert prepared.row_starts.tolist() == [0, 1, 1, 1, 1, 2]
        assert (prepared.counts.rows, prepared.counts.skipped) == (5, 3)
    first, second = (report.read_text().splitlines() for report in reports)
    assert first == second
    assert [json.loads(line)["error"] for line in first] == [
        "train.jsonl:2: not JSON",
        "train.jsonl:3: 'text' must be text",
        "train.jsonl:4: faulty",
    ]


def test_a_stricter_run_is_not_fooled_by_the_cache(fakes):
    texts = ["one", 2, 3, "four"]
    run(fakes, fakes.Texts(texts), config=DataConfig(on_error="skip"))
    with pytest.raises(DataError, match=r"train\.jsonl:2"):
        run(fakes, fakes.Texts(texts))
    with pytest.raises(DataError, match=r"2 faulty rows, more than data\.max_skipped=1"):
        run(fakes, fakes.Texts(texts), config=DataConfig(on_error="skip", max_skipped=1))
    errors = RowErrors("skip", 5)
    run(fakes, fakes.Texts(texts), errors=errors)
    assert errors.num_skipped == 2


def test_a_data_set_that_cannot_be_read_is_no_fault_of_the_cache(fakes, cache):
    with pytest.raises(SourceError, match=r"row 2 of the data set cannot be read: .*gone"):
        run(fakes, fakes.Texts(["one", FileNotFoundError(2, "gone", "train.jsonl"), "three"]))
    assert entries(cache) == []


@pytest.mark.parametrize("file", ["tokens.bin", "tokens.weights", "tokens.ends", "rows.starts", "lines", "paths"])
@pytest.mark.parametrize("how", ["cut", "longer", "gone"])
def test_a_damaged_entry_is_made_again(fakes, cache, file, how):
    run(fakes, fakes.Texts(["one", "two"]))
    (entry,) = entries(cache)
    damaged = cache / entry / file
    if how == "gone":
        damaged.unlink()
    else:
        content = damaged.read_bytes()
        damaged.write_bytes(content[:-1] if how == "cut" else content + b"\0")
    again = fakes.Texts(["one", "two"])
    assert words(run(fakes, again)) == ["one", "two"]
    assert again.num_read == 4, "both for the key, and both again"
    assert words(run(fakes, fakes.Texts(["one", "two"]))) == ["one", "two"]


def test_a_damaged_header_is_found(fakes, cache):
    run(fakes, fakes.Texts(["one", "two"]))
    (entry,) = entries(cache)
    header = cache / entry / "header.json"
    written = header.read_text()
    for damaged in (written.replace("<u2", "<i2"), written[:-10], "", "[]", "{}"):
        assert damaged != written
        header.write_text(damaged)
        again = fakes.Texts(["one", "two"])
        assert words(run(fakes, again)) == ["one", "two"]
        assert again.num_read == 4
        assert header.read_text() == written


def test_entries_that_nobody_uses_make_room(fakes, cache):
    run(fakes, fakes.Texts(["old"]))
    (old,) = entries(cache)
    run(fakes, fakes.Texts(["used"]))
    (used,) = set(entries(cache)) - {old}
    long_ago = time.time() - (UNUSED_DAYS + 1) * 24 * 3600
    for name in (old, used):
        os.utime(cache / name, (long_ago, long_ago))
    run(fakes, fakes.Texts(["used"]))
    run(fakes, fakes.Texts(["new"]))
    assert old not in entries(cache)
    assert used in entries(cache), "it was asked for just now"
    assert len(entries(cache)) == 2


PREPARE = """
import sys
from character_encoding import CharacterEncoder, TextFormatter, Texts
from llmkit import plugins
from llmkit.config.schema import DataConfig, SFTDataConfig
from llmkit.data.preparing.encode_pool import encode_rows
from llmkit.data.encoders import SampleEncoder
from llmkit.data.preparing.prepared import prepare

def main(num_rows, seconds, num_workers):
    texts = Texts([f"row {index}" for index in range(num_rows)], seconds=seconds)
    prepared = prepare(texts, TextFormatter(), CharacterEncoder(), DataConfig(num_workers=num_workers))
    print(texts.num_read, len(prepared))
"""


def start(tmp_path, call):
    script = tmp_path / "prepare_rows.py"
    script.write_text(f"{PREPARE}\nif __name__ == '__main__':\n    {call}\n")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKES), *sys.path])}
    return subprocess.Popen(
        [sys.executable, script], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_whole(fakes, cache, tmp_path, num_workers):
    process = start(tmp_path, f"main(1000, 0.005, {num_workers})")
    wait_until(lambda: list(cache.glob("*.partial/tokens.bin")))
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    (partial,) = entries(cache)
    assert partial.endswith(".partial")
    texts = fakes.Texts([f"row {index}" for index in range(1000)])
    prepared = prepare(texts, fakes.TextFormatter(), fakes.CharacterEncoder(), DataConfig())
    assert words(prepared) == texts.texts
    assert texts.num_read == 1002
    assert entries(cache) == [partial.removesuffix(".partial")]


def test_of_several_processes_one_makes_it_and_the_others_wait(cache, tmp_path):
    processes = [start(tmp_path, "main(200, 0.005, 0)") for _ in range(3)]
    told = sorted(process.communicate(timeout=60)[0].split() for process in processes)
    # Two rows are read for the key.
    assert told == [["2", "200"], ["2", "200"], ["202", "200"]]
    assert len(entries(cache)) == 1


def test_a_disk_that_takes_no_more_is_named_with_the_way_out(cache, tmp_path):
    # No file may grow beyond 100 bytes; the token ids alone take more.
    process = start(
        tmp_path,
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY)); main(100, 0, 0)",
    )
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    last = said.strip().splitlines()[-1]
    assert TrainingError.__name__ in last
    assert "File too large" in last
    assert "LLMKIT_CACHE" in last
    assert entries(cache) == []


def test_a_temporary_directory_that_takes_no_more_is_named_with_the_way_out(fakes, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"llmkit-data-.*File too large; set TMPDIR"):
            run(fakes, fakes.Texts(["word"] * 100), config=DataConfig(cache=False))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.glob("llmkit-data-*"))


def test_memory_does_not_grow_with_the_rows(tmp_path):
    # 400 rows of 20,000 tokens are 8 million tokens: 60 MB as lists of one item each, in 24 MB of files.
    measure = (
        "import resource; from pathlib import Path; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    class Long(Texts):\n"
        "        def __getitem__(self, index): return row('word ' * 4000 + str(index), index + 1)\n"
        "    def once(count): return prepare(Long([''] * count, str(count)), TextFormatter(), "
        "CharacterEncoder(100_000), DataConfig())\n"
        "    from character_encoding import row\n"
        "    once(70); before = peak(); prepared = once(400); print(peak() - before, len(prepared))"
    )
    told, said = start(tmp_path, measure).communicate(timeout=120)
    assert told, said
    growth, num_items = map(int, told.split())
    assert num_items == 400
    assert growth < 20_000, f"{growth} kB more for 330 more rows"


def test_what_real_encoders_give_comes_back_exactly(cache):
    codec = tiny_codec()
    rows = [
        Row(
            {
                "messages": [
                    {"role": "user", "content": f"What is {number} + 1?"},
                    {"role": "assistant", "content": str(number + 1), "weight": [1, 0.5, 0.1][number % 3]},
                ]
            },
            Source("train.jsonl", number + 1),
        )
        for number in range(9)
    ]

    class Rows(list):
        def fingerprint(self):
            return "nine rows"

    formatter = plugins.load("formatters", "messages")
    formatter = formatter.build(formatter.Config())
    encoder = SampleEncoder(codec, SFTDataConfig())
    wanted = [item for result in encode_rows(rows, formatter, encoder, num_workers=0) for item in result.items]
    assert {max(item.loss_weights) for item in wanted} == {1.0, 0.5, 0.1}
    for _ in ("made", "from the cache"):
        prepared = prepare(Rows(rows), formatter, encoder, SFTDataConfig())
        assert [prepared[index] for index in range(len(prepared))] == wanted
    assert len(entries(cache)) == 1


def test_interrupting_it_leaves_nothing_behind(fakes, cache):
    with pytest.raises(KeyboardInterrupt):
        run(fakes, fakes.Texts(["one", KeyboardInterrupt(), "three"]))
    assert entries(cache) == []
