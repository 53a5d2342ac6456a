"""Merge tensor by tensor: what is in memory is one weight of the base model and its updates."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from llmkit.convert.casting import converted, in_dtype
from llmkit.convert.merging.combining import Combination, combine
from llmkit.convert.merging.low_rank import LowRankUpdate
from llmkit.convert.tensor_files import INDEX, SafetensorsWriter, WeightFiles
from llmkit.convert.tensor_source import parts
from llmkit.data.preparing.progress import with_progress

Updates = Mapping[str, Sequence[tuple[LowRankUpdate, float]]]
"""For names of weights, their updates, each with the weight of its adapter."""


def write_merged(base: WeightFiles, updates: Updates, how: Combination, dtype: torch.dtype | None, out: Path) -> None:
    """Write the weights of the base model with the updates in them, into files as the base model has.

    Args:
        base: its weights.
        updates: to add.
        how: several of one weight become one.
        dtype: of what is written; None keeps each tensor's own.
        out: the directory to write to.

    Raises:
        ConvertError: a number is not finite, or not in `dtype`.
    """
    names = [(file, name) for file, reader in base.readers.items() for name in reader.tensors]
    with ExitStack() as stack:
        writers: dict[str, SafetensorsWriter] = {}
        for file, name in with_progress(names, len(names), "Merging weights"):
            shapes = {one: converted(shape, dtype) for one, shape in base.readers[file].tensors.items()}
            if file not in writers:
                writers[file] = stack.enter_context(SafetensorsWriter(out / file, shapes))
            if name in updates:
                merged = base.read(name).float()
                pieces = iter([merged.add_(total_update(updates[name], how, name))])
                del merged
            else:
                pieces = parts(base, name)
            writers[file].write(name, (in_dtype(piece, shapes[name].dtype, name) for piece in pieces))
    write_index(base, out, dtype)


def total_update(updates: Sequence[tuple[LowRankUpdate, float]], how: Combination, name: str) -> Tensor:
    """What is added to one weight, float32."""
    matrices = [update.matrix() for update, _ in updates]
    weights = [weight for _, weight in updates]
    if len(matrices) == 1 and weights == [1.0] and how.method == "linear":
        return matrices[0]
    return combine(matrices, weights, how, name)


def write_index(base: WeightFiles, out: Path, dtype: torch.dtype | None) -> None:
    """Say which file holds which tensor, where there are several."""
    if len(base.readers) < 2 and not (base.directory / INDEX).is_file():
        return
    shapes = {name: converted(shape, dtype) for name, shape in base.tensors.items()}
    places = {name: file for file, reader in base.readers.items() for name in reader.tensors}
    index = {
        "metadata": {"total_size": sum(shape.num_bytes for shape in shapes.values())},
        "weight_map": dict(sorted(places.items())),
    }
    (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
