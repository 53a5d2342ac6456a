"""`llmkit convert checkpoint`: one layout of the same weights to another."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from llmkit.convert.checkpoints.sources import TORCH_SUFFIXES, Layout, TensorSource, alone, open_checkpoint
from llmkit.convert.merging.base import copy_beside, write_config
from llmkit.convert.merging.streaming import converted, in_dtype
from llmkit.convert.output import check_output, check_space, new_directory, new_files
from llmkit.convert.record import MANIFEST, Conversion, describe_directory, describe_files
from llmkit.convert.tensor_files import INDEX, WHOLE, SafetensorsWriter, TensorShape
from llmkit.data.preparing.progress import with_progress
from llmkit.errors import CheckpointError, ConfigError, ConvertError


@dataclass(frozen=True)
class CheckpointRequest:
    """What to convert.

    Attributes:
        source: a model directory, a file, or a directory of a distributed checkpoint.
        output: a directory, or for `torch` a file.
        layout: of what is written.
        dtype: of what is written; None keeps each tensor's own.
        max_shard_bytes: of each safetensors file.
        renames: new start of a name for an old one; the first that fits counts.
        verify: read what was written, and compare every tensor.
        overwrite: replace what is there.
    """

    source: Path
    output: Path
    layout: Layout
    dtype: torch.dtype | None = None
    max_shard_bytes: int = 5_000_000_000
    renames: Mapping[str, str] = field(default_factory=dict)
    verify: bool = False
    overwrite: bool = False


def convert_checkpoint(request: CheckpointRequest) -> dict[str, Any]:
    """Write the weights in another layout; returns what the manifest says.

    Raises:
        CheckpointError: the source is missing or damaged.
        ConfigError: an option is wrong, or the output is in the way.
        ConvertError: the result is not what it should be, or cannot be written.
    """
    is_file = request.output.suffix in TORCH_SUFFIXES
    if is_file != (request.layout == "torch"):
        raise ConfigError(
            f"{request.output}: --to torch writes a file ({', '.join(TORCH_SUFFIXES)}), the others a directory"
        )
    check_output(request.output, [request.source], overwrite=request.overwrite)
    layout, source = open_checkpoint(request.source)
    names = _renamed(source, request.renames)
    shapes = {new: converted(source.tensors[old], request.dtype) for new, old in names.items()}
    check_space(request.output, sum(shape.num_bytes for shape in shapes.values()))
    conversion = _begin(request, layout, source, shapes)
    opened = new_files if is_file else new_directory
    with opened(request.output, [request.source], overwrite=request.overwrite) as out:
        _write(request, source, names, shapes, out)
        if request.verify:
            conversion.checks |= _verified(request, source, names, shapes, out)
        files = describe_files([out], out.parent) if is_file else describe_files(
            [file for file in out.rglob("*") if file.is_file()], out
        )  # fmt: skip
        document = conversion.document() | {"files": files}
        conversion.write(out.with_name(f"{out.name}.{MANIFEST}") if is_file else out / MANIFEST, document)
    return document


def shards(shapes: Mapping[str, TensorShape], max_bytes: int) -> list[list[str]]:
    """Names in their order, divided so that no part is larger; a larger tensor is a part of its own."""
    parts: list[list[str]] = []
    size = 0
    for name, shape in shapes.items():
        if not parts or (size + shape.num_bytes > max_bytes and parts[-1]):
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += shape.num_bytes
    return parts


def _renamed(source: TensorSource, renames: Mapping[str, str]) -> dict[str, str]:
    """Old names by the new ones."""
    if not source.tensors:
        raise CheckpointError("the checkpoint holds no tensors")
    names: dict[str, str] = {}
    used: set[str] = set()
    for old in source.tensors:
        start = next((start for start in renames if old.startswith(start)), None)
        new = old if start is None else renames[start] + old.removeprefix(start)
        used |= {start} if start is not None else set()
        if not new or new in names:
            raise ConfigError(f"--rename: {old} and {names.get(new, 'nothing')} would both be called {new!r}")
        names[new] = old
    if unused := [start for start in renames if start not in used]:
        raise ConfigError(f"--rename {unused[0]}=...: no name begins so; the first one is {next(iter(source.tensors))}")
    return names


def _begin(
    request: CheckpointRequest, layout: Layout, source: TensorSource, shapes: Mapping[str, TensorShape]
) -> Conversion:
    conversion = Conversion("checkpoint", str(request.output))
    path = request.source
    files = describe_files([path], path.parent) if path.is_file() else describe_directory(path)
    conversion.inputs = {str(path): files}
    kinds = Counter(str(shape.dtype).removeprefix("torch.") for shape in shapes.values())
    conversion.options = {"from": layout, "to": request.layout, "dtypes": dict(kinds), "renames": dict(request.renames)}
    conversion.checks = {"tensors": len(shapes), "bytes": sum(shape.num_bytes for shape in shapes.values())}
    if left_out := getattr(source, "left_out", []):
        conversion.notes.append(f"{len(left_out)} entries are no tensors and were left out: {', '.join(left_out[:5])}")
    return conversion


def _write(
    request: CheckpointRequest,
    source: TensorSource,
    names: Mapping[str, str],
    shapes: Mapping[str, TensorShape],
    out: Path,
) -> None:
    def tensor(new: str) -> Tensor:
        return in_dtype(source.read(names[new]), shapes[new].dtype, names[new])

    if request.layout == "safetensors":
        _write_safetensors(shapes, request.max_shard_bytes, out, tensor)
    else:
        # Both want the whole mapping at once.
        state = {new: tensor(new) for new in with_progress(names, len(names), "Reading tensors")}
        if request.layout == "torch":
            torch.save(state, out)
            return
        with alone():
            save_distributed(state, storage_writer=FileSystemWriter(out), no_dist=True)
    if request.source.is_dir() and (request.source / "config.json").is_file():
        if request.dtype is not None:
            write_config(request.source, out, str(request.dtype).removeprefix("torch."))
        copy_beside(request.source, None, out)


def _write_safetensors(shapes: Mapping[str, TensorShape], max_bytes: int, out: Path, tensor: Any) -> None:
    parts = shards(shapes, max_bytes)
    files = [f"model-{number:05}-of-{len(parts):05}.safetensors" for number in range(1, len(parts) + 1)]
    files = [WHOLE] if len(parts) == 1 else files
    progress = iter(with_progress(shapes, len(shapes), "Writing tensors"))
    for file, part in zip(files, parts, strict=True):
        with SafetensorsWriter(out / file, {name: shapes[name] for name in part}) as writer:
            for name in part:
                next(progress)
                writer.write(name, tensor(name))
    if len(parts) > 1:
        index = {
            "metadata": {"total_size": sum(shape.num_bytes for shape in shapes.values())},
            "weight_map": {name: file for file, part in zip(files, parts, strict=True) for name in part},
        }
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _verified(
    request: CheckpointRequest,
    source: TensorSource,
    names: Mapping[str, str],
    shapes: Mapping[str, TensorShape],
    out: Path,
) -> dict[str, Any]:
    """Read the result and hold every tensor against the source."""
    _, written = open_checkpoint(out)
    if dict(written.tensors) != dict(shapes):
        raise ConvertError(f"{request.output}: names, shapes or types differ from what was to be written")
    for new, old in names.items():
        wanted = source.read(old)
        wanted = wanted.to(shapes[new].dtype) if wanted.dtype.is_floating_point else wanted
        if not same_bits(written.read(new), wanted):
            raise ConvertError(f"{request.output}: the values of {new} are not those of the source")
    return {"names": "equal", "shapes": "equal", "dtypes": "equal", "values": "equal, bit for bit"}


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bytes."""
    flat: Sequence[Tensor] = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return torch.equal(flat[0], flat[1])
