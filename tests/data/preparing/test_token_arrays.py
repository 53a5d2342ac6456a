import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.data.preparing.array_file import ArrayLayout, ArrayWriter, map_array
from llmkit.data.preparing.token_arrays import TokenArrays, TokenLayout, TokenWriter


def write(directory: Path, sequences):
    writer = TokenWriter(directory / "tokens")
    for token_ids, loss_weights in sequences:
        writer.append(token_ids, loss_weights)
    layout = TokenLayout.from_json(json.loads(json.dumps(writer.finish().to_json())))
    return TokenArrays(directory / "tokens", layout), layout


def read(arrays: TokenArrays):
    return [(arrays.ids(index).tolist(), arrays.weights(index).tolist()) for index in range(len(arrays))]


def test_sequences_lie_end_to_end(tmp_path):
    arrays, layout = write(tmp_path, [([5, 6, 7], [0.0, 1.0, 0.25]), ([], []), ([65_535], [1.0])])
    assert arrays.ends.tolist() == [3, 3, 4]
    assert arrays.lengths.tolist() == [3, 0, 1]
    assert read(arrays) == [([5, 6, 7], [0.0, 1.0, 0.25]), ([], []), ([65_535], [1.0])]
    assert layout.ids == ArrayLayout("<u2", 4)
    assert (tmp_path / "tokens.bin").read_bytes() == bytes([5, 0, 6, 0, 7, 0, 255, 255])
    assert layout.weight_table == [0.0, 1.0, 0.25]
    assert (tmp_path / "tokens.weights").read_bytes() == bytes([0, 1, 2, 1])


def test_a_part_of_a_sequence_can_be_read(tmp_path):
    arrays, _ = write(tmp_path, [([9], [1.0]), ([1, 2, 3, 4], [0.0, 1.0, 0.5, 1.0])])
    assert arrays.ids(1, 1, 3).tolist() == [2, 3]
    assert arrays.weights(1, 1, 3).tolist() == [1.0, 0.5]
    assert arrays.ids(1, 2).tolist() == [3, 4]
    assert arrays.ids(0, 0, 9).tolist() == [9], "it ends where the sequence does"
    assert arrays.ids(0, 3, 9).tolist() == []


def test_ids_take_four_bytes_from_the_first_one_that_needs_them(tmp_path):
    arrays, layout = write(tmp_path, [([1, 2], [0.0, 1.0]), ([65_536, 3], [0.0, 1.0]), ([4], [1.0])])
    assert layout.ids == ArrayLayout("<i4", 5)
    assert [ids for ids, _ in read(arrays)] == [[1, 2], [65_536, 3], [4]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens.bin", "tokens.ends", "tokens.weights"]


def test_more_weights_than_a_byte_can_count_are_kept_as_they_are(tmp_path):
    # 300 distinct quarters, which float32 holds exactly; the table is given up at the 257th.
    weights = [index / 4 for index in range(300)]
    arrays, layout = write(tmp_path, [([1] * 100, weights[:100]), ([2] * 200, weights[100:]), ([3], [0.1])])
    assert layout.weight_table is None
    assert layout.weights == ArrayLayout("<f4", 301)
    assert [found for _, found in read(arrays)] == [weights[:100], weights[100:], [float(np.float32(0.1))]]


@pytest.mark.parametrize("wrong", [-1, 2**31])
def test_an_id_that_no_vocabulary_has_is_refused(tmp_path, wrong):
    with closing(TokenWriter(tmp_path / "tokens")) as writer, pytest.raises(OverflowError, match=str(wrong)):
        writer.append([1, wrong], [0.0, 1.0])


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 200_000), st.sampled_from([0.0, 1.0, 0.5, 0.1, 1 / 3])), max_size=6),
        max_size=12,
    )
)
def test_what_is_written_is_read_again(tmp_path_factory, sequences):
    given = [([token for token, _ in pairs], [weight for _, weight in pairs]) for pairs in sequences]
    arrays, layout = write(tmp_path_factory.mktemp("tokens"), given)
    assert read(arrays) == given
    largest = max((token for ids, _ in given for token in ids), default=0)
    assert layout.ids.dtype == ("<u2" if largest < 65_536 else "<i4")


def test_nothing_can_be_written_too(tmp_path):
    arrays, _ = write(tmp_path, [])
    assert len(arrays) == 0
    assert arrays.lengths.tolist() == []


@pytest.mark.parametrize("change", [b"", b"\1\0\2\0\3\0", b"\1"])
def test_a_file_of_another_size_is_not_read(tmp_path, change):
    file = ArrayWriter(tmp_path / "array", np.uint16)
    file.append([1, 2])
    layout = file.finish()
    assert map_array(tmp_path / "array", layout).tolist() == [1, 2]
    (tmp_path / "array").write_bytes(change)
    with pytest.raises(ValueError, match=f"has {len(change)} bytes, not 4"):
        map_array(tmp_path / "array", layout)
