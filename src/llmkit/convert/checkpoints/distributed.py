"""Distributed checkpoints of torch, written a part of a tensor at a time."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.state_dict_saver import save

from llmkit.convert.checkpoints.distributed_files import alone
from llmkit.convert.tensor_files import TensorShape
from llmkit.convert.tensor_source import TensorSource, row_parts


def write_distributed(source: TensorSource, out: Path) -> None:
    """Write a directory that one process, or any number of them, can load."""
    with alone():
        save({}, storage_writer=FileSystemWriter(out, thread_count=1), planner=_Planner(source), no_dist=True)


class _Planner(DefaultSavePlanner):
    """Plans from shapes alone, and reads what is to be written when its turn comes."""

    def __init__(self, source: TensorSource) -> None:
        super().__init__()
        self._source = source
        self._written = torch.empty(0)

    def set_up_planner(
        self, state_dict: Any, storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        # The tensors are in the source, so the state is empty; the mappings say that names are not nested.
        super().set_up_planner({}, storage_meta, is_coordinator)
        self.mappings = {name: (name,) for name in self._source.tensors}

    def create_local_plan(self) -> SavePlan:
        items = [_item(name, entry, rows) for name, entry in self._source.tensors.items() for rows in row_parts(entry)]
        self.plan = SavePlan(items, planner_data=self.mappings)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        assert write_item.tensor_data is not None
        chunk, name = write_item.tensor_data.chunk, write_item.index.fqn
        if write_item.type is WriteItemType.TENSOR:
            tensor = self._source.read(name)
        else:
            tensor = self._source.read(name, slice(chunk.offsets[0], chunk.offsets[0] + chunk.sizes[0]))
        # torch keeps what it has written until all is written, so its memory is taken away; only its own can be.
        self._written.untyped_storage().resize_(0)
        self._written = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
        return self._written


def _item(name: str, entry: TensorShape, rows: slice | None) -> WriteItem:
    size = torch.Size(entry.shape)
    offsets = torch.Size([0] * len(size)) if rows is None else torch.Size([rows.start, *[0] * (len(size) - 1)])
    part = size if rows is None else torch.Size(entry.of_rows(rows).shape)
    return WriteItem(
        index=MetadataIndex(name, offsets),
        type=WriteItemType.TENSOR if rows is None else WriteItemType.SHARD,
        tensor_data=TensorWriteData(
            chunk=ChunkStorageMetadata(offsets=offsets, sizes=part),
            properties=TensorProperties(dtype=entry.dtype),
            size=size,
        ),
    )
