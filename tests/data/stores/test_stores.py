"""What each store reads beside its own files, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmkit import plugins
from llmkit.errors import DataError, TrainingError
from llmkit.types import Sample, Source


def store(name, **options):
    plugin = plugins.load("stores", name)
    return plugin.build(plugin.Config(**options))


def sample(ids, weights):
    return Sample(ids, weights, Source("made", 1))


def read(sequences):
    found = [sequences.read(index) for index in range(len(sequences))]
    return [(ids.tolist(), None if weights is None else weights.tolist()) for ids, weights in found]


def test_a_plain_file_of_ids_is_one_long_sequence(tmp_path):
    path = tmp_path / "corpus.bin"
    path.write_bytes(bytes([1, 0, 0, 1, 255, 255]))
    sequences = store("memmap", dtype="uint16").open(path)
    assert sequences.lengths.tolist() == [3]
    assert read(sequences) == [([1, 256, 65535], None)]
    assert sequences.read(0, 1, 2).ids.tolist() == [256]
    assert sequences.source(0) == Source(str(path), 1)


def test_a_plain_file_must_be_told_its_type(tmp_path):
    path = tmp_path / "corpus.bin"
    path.write_bytes(b"\1\0\2")
    with pytest.raises(DataError, match=r"no header corpus\.json beside it.*store\.dtype=uint16"):
        store("memmap").open(path)
    with pytest.raises(DataError, match="3 bytes are no whole number of uint16 ids"):
        store("memmap", dtype="uint16").open(path)


def test_ids_of_another_type_are_noticed_where_they_can_be(tmp_path):
    path = tmp_path / "corpus.bin"
    np.array([1, 2**31 + 5], np.uint32).tofile(path)
    with pytest.raises(DataError, match=r"corpus\.bin:1: token 1 has the id 2147483653.*store\.dtype"):
        store("memmap", dtype="uint32").open(path).read(0)


def test_our_own_files_need_no_type(tmp_path, caplog):
    path = tmp_path / "corpus.bin"
    store("memmap").write(path, [sample([1, 2], [0.0, 1.0]), sample([3], [0.5])])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "corpus.bin",
        "corpus.ends",
        "corpus.json",
        "corpus.weights",
    ]
    assert path.read_bytes() == bytes([1, 0, 2, 0, 3, 0]), "the ids alone, for programs that read plain files"
    assert read(store("memmap", dtype="int64").open(path)) == [([1, 2], [0.0, 1.0]), ([3], [0.5])]
    assert "store.dtype=int64 has no effect" in caplog.text


def test_a_header_of_a_later_version_or_damaged_is_refused(tmp_path):
    path = tmp_path / "corpus.bin"
    store("memmap").write(path, [sample([1, 2], [0.0, 1.0])])
    header = json.loads((tmp_path / "corpus.json").read_text())
    for change, said in (({"version": 2}, "update llmkit"), ({"layout": {}}, "the header is damaged")):
        (tmp_path / "corpus.json").write_text(json.dumps({**header, **change}))
        with pytest.raises(DataError, match=said):
            store("memmap").open(path)


def test_a_file_of_somebody_else_beside_it_is_no_header(tmp_path):
    path = tmp_path / "corpus.bin"
    path.write_bytes(b"\1\0")
    (tmp_path / "corpus.json").write_text('{"tokenizer": "gpt2"}')
    assert read(store("memmap", dtype="uint16").open(path)) == [([1], None)]


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py")


def test_hdf5_rows_are_sequences(h5py, tmp_path):
    path = tmp_path / "corpus.h5"
    with h5py.File(path, "w") as file:
        file["data/input_ids"] = np.array([[1, 2, 3], [4, 5, 6]], np.uint16)
        file["data/labels"] = np.array([[-100, 2, 3], [-100, -100, 6]])
    sequences = store("hdf5", token_ids="data/input_ids").open(path)
    assert sequences.lengths.tolist() == [3, 3]
    assert read(sequences) == [([1, 2, 3], [0.0, 1.0, 1.0]), ([4, 5, 6], [0.0, 0.0, 1.0])]
    assert sequences.read(1, 1, 2).ids.tolist() == [5]


def test_flat_hdf5_is_one_sequence_or_as_many_as_have_ends(h5py, tmp_path):
    path = tmp_path / "corpus.hdf5"
    with h5py.File(path, "w") as file:
        file["input_ids"] = np.arange(5)
    assert read(store("hdf5").open(path)) == [([0, 1, 2, 3, 4], None)]
    with h5py.File(path, "a") as file:
        file["ends"] = [2, 2, 5]
        file["loss_mask"] = [1, 0, 1, 1, 0]
    assert read(store("hdf5").open(path)) == [([0, 1], [1.0, 0.0]), ([], []), ([2, 3, 4], [1.0, 1.0, 0.0])]


def test_hdf5_that_does_not_fit_is_refused(h5py, tmp_path):
    def refuses(said, **data_sets):
        path = tmp_path / "corpus.h5"
        with h5py.File(path, "w") as file:
            for name, values in data_sets.items():
                file[name] = values
        with pytest.raises(DataError, match=said):
            read(store("hdf5").open(path))

    refuses("no data set 'input_ids'.*the file has tokens.*store.token_ids", tokens=[1, 2])
    refuses("'ends' must rise to 2", input_ids=[1, 2], ends=[1])
    refuses("'ends' must rise to 2", input_ids=[1, 2], ends=[2, 1])
    refuses(r"'labels' has the shape \(1,\), 'input_ids' \(2,\)", input_ids=[1, 2], labels=[1])
    refuses(r"corpus\.h5:1: labels\[1\] is 3; a label is its token's own id or -100", input_ids=[1, 2], labels=[1, 3])
    refuses(r"corpus\.h5:1: loss_weights\[0\] is -1\.0", input_ids=[1, 2], loss_weights=[-1.0, 0.0])
    refuses(r"corpus\.h5:1: loss_mask\[1\] is 2; it must be 0 or 1", input_ids=[1, 2], loss_mask=[0, 2])
    refuses("labels and loss_mask each say what is trained", input_ids=[1, 2], labels=[1, 2], loss_mask=[0, 1])
    refuses("'attention_mask' marks padding", input_ids=[1, 0], attention_mask=[1, 0])
    refuses("token ids must be a row of whole numbers", input_ids=[1.5, 2.0])
    refuses("token 0 has the id -3", input_ids=[-3, 2])


def test_a_file_that_is_no_hdf5_is_refused(h5py, tmp_path):
    (tmp_path / "corpus.h5").write_text("text")
    with pytest.raises(DataError, match=r"corpus\.h5: no HDF5 file"):
        store("hdf5").open(tmp_path / "corpus.h5")


def test_parquet_lengths_do_not_count_padding(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "corpus.parquet"
    parquet.write_table(
        pyarrow.table({"input_ids": [[1, 2, 0], [3, 4, 5]], "attention_mask": [[1, 1, 0], [1, 1, 1]]}), path
    )
    sequences = store("parquet").open(path)
    assert sequences.lengths.tolist() == [2, 3]
    assert read(sequences) == [([1, 2], [1.0, 1.0]), ([3, 4, 5], [1.0, 1.0, 1.0])]


def test_a_null_row_of_a_table_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "corpus.parquet"
    parquet.write_table(pyarrow.table({"input_ids": [[1, 2], None]}), path)
    with pytest.raises(DataError, match=r"corpus\.parquet:2: .*null"):
        _ = store("parquet").open(path).lengths


@pytest.mark.parametrize("name", ["jsonl", "parquet", "memmap", "hdf5"])
def test_a_disk_that_takes_no_more_leaves_the_old_file(tmp_path, name):
    if name == "hdf5":
        pytest.importorskip("h5py")
    path = tmp_path / f"corpus{store(name).suffixes[0]}"
    store(name).write(path, [sample([1, 2], [0.0, 1.0])])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    script = (
        "import resource, sys; from pathlib import Path; from llmkit import plugins; from llmkit.types import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))\n"
        "numbers = list(range(40_000))\n"
        "plugin = plugins.load('stores', sys.argv[1])\n"
        "weights = [float(number % 7) for number in numbers]\n"
        "plugin.build(plugin.Config()).write(Path(sys.argv[2]), [Sample(numbers, weights, Source('made', 1))] * 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, name, path], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode != 0
    assert TrainingError.__name__ in done.stderr.strip().splitlines()[-1], done.stderr
    assert str(path) in done.stderr.strip().splitlines()[-1]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_memory_does_not_grow_with_what_is_written(tmp_path):
    # A hundred times a sample of 30,000 tokens would be 100 MB as Python objects.
    script = (
        "import resource, sys; from pathlib import Path; from llmkit import plugins; from llmkit.types import *\n"
        "plugin = plugins.load('stores', sys.argv[1]); store = plugin.build(plugin.Config())\n"
        "def samples(count):\n"
        "    for _ in range(count):\n"
        "        yield Sample([i % 50_000 for i in range(30_000)], [0.0, *[1.0] * 29_999], Source('made', 1))\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "store.write(Path(sys.argv[2]), samples(5)); before = peak()\n"
        "store.write(Path(sys.argv[2]), samples(200)); print(peak() - before)\n"
    )
    for name in ("jsonl", "memmap"):
        path = tmp_path / f"{name}{store(name).suffixes[0]}"
        done = subprocess.run([sys.executable, "-c", script, name, path], capture_output=True, text=True, check=True)
        assert int(done.stdout) < 20_000, f"{name}: {done.stdout} kB more for 195 more samples"
        assert Path(path).stat().st_size > 200 * 30_000
