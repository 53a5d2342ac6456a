"""Tensors of `torch.save` and of distributed checkpoints, read in parts from wherever torch has put them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_saver import save

from llmkit.convert.checkpoints.distributed_files import DistributedFiles, alone
from llmkit.convert.checkpoints.sources import TorchFiles
from llmkit.errors import CheckpointError

BASE = torch.arange(24.0).reshape(6, 4)
TENSORS = {
    "whole": BASE,
    "view": BASE[2:4, 1:3],
    "turned": BASE.t(),
    "repeated": torch.arange(3).expand(5, 3),
    "bytes": torch.tensor([True, False]),
    "half": BASE.bfloat16(),
    "empty": torch.empty(0, 3),
    "number": torch.tensor(7),
}


def assert_all_read(source: Any, tensors: dict[str, Tensor]):
    for name, tensor in tensors.items():
        assert torch.equal(source.read(name), tensor)
        for start in range(tensor.shape[0] if tensor.ndim else 0):
            for end in range(start + 1, tensor.shape[0] + 1):
                assert torch.equal(source.read(name, slice(start, end)), tensor[start:end])


def test_views_of_one_storage_are_read_from_their_places(tmp_path: Path):
    torch.save({"model": TENSORS, "step": 3}, tmp_path / "model.pt")
    source = TorchFiles([tmp_path / "model.pt"])
    assert_all_read(source, TENSORS)
    source.read("whole").zero_()
    assert torch.equal(source.read("view"), TENSORS["view"])


def test_old_files_and_sparse_tensors_are_refused(tmp_path: Path):
    torch.save({"a": BASE}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"a": BASE.to_sparse()}, tmp_path / "sparse.pt")
    for name in ("old.pt", "sparse.pt"):
        with pytest.raises(CheckpointError, match=name):
            TorchFiles([tmp_path / name])


class ShardPlanner(DefaultSavePlanner):
    """Saves one tensor as four shards, cut in both dimensions."""

    def create_local_plan(self) -> SavePlan:
        self.mappings = {"a": ("a",)}
        items = [self._item(row, column) for row in (0, 4) for column in (0, 3)]
        self.plan = SavePlan(items, planner_data=self.mappings)
        return self.plan

    def _item(self, row: int, column: int) -> WriteItem:
        offsets, sizes = torch.Size([row, column]), torch.Size([4 if not row else 2, 3 if not column else 1])
        chunk = ChunkStorageMetadata(offsets=offsets, sizes=sizes)
        data = TensorWriteData(chunk, TensorProperties(dtype=BASE.dtype), BASE.shape)
        return WriteItem(MetadataIndex("a", offsets), WriteItemType.SHARD, tensor_data=data)

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        assert write_item.tensor_data is not None
        (row, column), (rows, columns) = write_item.tensor_data.chunk.offsets, write_item.tensor_data.chunk.sizes
        return BASE[row : row + rows, column : column + columns].clone()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    with alone():
        save({}, storage_writer=FileSystemWriter(tmp_path), planner=ShardPlanner(), no_dist=True)
    return tmp_path


def test_shards_in_two_dimensions_are_put_together(shards: Path):
    assert_all_read(DistributedFiles(shards), {"a": BASE})


def test_tensors_that_were_saved_whole_are_read_in_parts(tmp_path: Path):
    tensors = {name: tensor for name, tensor in TENSORS.items() if tensor.numel()}
    with alone():
        save(tensors, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    assert_all_read(DistributedFiles(tmp_path), tensors)


def test_a_shard_that_is_missing_or_torn_is_named(shards: Path):
    (file,) = shards.glob("*.distcp")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="a cannot be read"):
        DistributedFiles(shards)
    file.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        DistributedFiles(shards)
