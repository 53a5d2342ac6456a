"""Merge tensor by tensor: what is in memory is one weight of the base model and its updates."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from llmkit.convert.merging.combining import Combination, combine
from llmkit.convert.merging.low_rank import LowRankUpdate
from llmkit.convert.tensor_files import INDEX, SafetensorsWriter, TensorShape, WeightFiles
from llmkit.data.preparing.progress import with_progress
from llmkit.errors import ConvertError

PART = 1 << 20
"""Numbers that are looked at together."""
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
            tensor = base.read(name)
            if name in updates:
                tensor = tensor.float() + total_update(updates[name], how, name)
            writers[file].write(name, in_dtype(tensor, shapes[name].dtype, name))
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


def converted(shape: TensorShape, dtype: torch.dtype | None) -> TensorShape:
    """The same tensor in another type; counts and masks keep theirs."""
    return shape if dtype is None or not shape.dtype.is_floating_point else TensorShape(dtype, shape.shape)


def all_finite(tensor: Tensor) -> bool:
    """Whether no number is infinite or none at all; looks at a part at a time, as it copies what it looks at."""
    return all(torch.isfinite(part.float()).all() for part in tensor.reshape(-1).split(PART))


def in_dtype(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A tensor in a type that holds it.

    Raises:
        ConvertError: one of its numbers is not finite there.
    """
    if not tensor.dtype.is_floating_point:
        return tensor
    cast = tensor.to(dtype)
    if not all_finite(cast):
        kind = str(dtype).removeprefix("torch.")
        if all_finite(tensor):
            raise ConvertError(f"{name}: has numbers that {kind} cannot hold; use --dtype bfloat16 or float32")
        raise ConvertError(f"{name}: has numbers that are not finite; nothing was written")
    return cast
