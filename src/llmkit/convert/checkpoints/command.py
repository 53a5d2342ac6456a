"""`llmkit convert checkpoint`: one layout of the same weights to another."""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from llmkit.convert.casting import same_bits
from llmkit.convert.checkpoints import torchao_weights
from llmkit.convert.checkpoints.changing import Cast, Renamed, Resized
from llmkit.convert.checkpoints.distributed import write_distributed
from llmkit.convert.checkpoints.model_shapes import check_model
from llmkit.convert.checkpoints.resizing import new_size, sizes_by_name
from llmkit.convert.checkpoints.safetensors_files import write_safetensors
from llmkit.convert.checkpoints.sources import TORCH_SUFFIXES, open_checkpoint
from llmkit.convert.checkpoints.torch_files import write_torch
from llmkit.convert.gguf_files import command as gguf_files
from llmkit.convert.gguf_files.checking import verify as verify_gguf
from llmkit.convert.gguf_files.recipes import RECIPES, WHOLE
from llmkit.convert.merging.base import copy_beside, write_config
from llmkit.convert.output import check_output, check_space, new_directory, new_files
from llmkit.convert.record import MANIFEST, Conversion, describe_directory, describe_files
from llmkit.convert.tensor_source import TensorSource, row_parts
from llmkit.errors import ConfigError, ConvertError

Target = Literal["safetensors", "torch", "dcp", "gguf"]
FILE_SUFFIXES: Mapping[str, tuple[str, ...]] = {"torch": TORCH_SUFFIXES, "gguf": (".gguf",)}
"""How the name of what is written must end, for targets that are files."""


@dataclass(frozen=True)
class CheckpointRequest:
    """What to convert.

    Attributes:
        source: a model directory, a file, or a directory of a distributed checkpoint.
        output: a directory, or for `torch` and `gguf` a file.
        layout: of what is written.
        dtype: of what is written; None keeps each tensor's own, and for `gguf` the most frequent.
        quantize: a mixture of gguf's types, or a kind of torchao's with `safetensors`; None leaves weights whole.
        max_shard_bytes: of each safetensors file.
        renames: new start of a name for an old one; the first that fits counts.
        vocab_size: rows of embedding and output head; None leaves them.
        vocab_multiple: rounds them up.
        verify: read what was written, and compare every tensor.
        overwrite: replace what is there.
    """

    source: Path
    output: Path
    layout: Target
    dtype: torch.dtype | None = None
    quantize: str | None = None
    max_shard_bytes: int = 5_000_000_000
    renames: Mapping[str, str] = field(default_factory=dict)
    vocab_size: int | None = None
    vocab_multiple: int | None = None
    verify: bool = False
    overwrite: bool = False

    @property
    def is_file(self) -> bool:
        """Whether a file is written, and no directory."""
        return self.layout in FILE_SUFFIXES

    @property
    def with_torchao(self) -> bool:
        """Whether torchao rounds the weights."""
        return self.quantize in torchao_weights.KINDS

    @cached_property
    def rows(self) -> int | None:
        """Rows that embedding and output head are to have; None leaves them."""
        if self.vocab_size is None and self.vocab_multiple is None:
            return None
        return new_size(self.source, self.vocab_size, self.vocab_multiple)


def convert_checkpoint(request: CheckpointRequest) -> dict[str, Any]:
    """Write the weights in another layout; returns what the manifest says.

    Raises:
        CheckpointError: the source is missing or damaged.
        ConfigError: an option is wrong, or the output is in the way.
        ConvertError: the result is not what it should be, or cannot be written.
    """
    _check_request(request)
    check_output(request.output, [request.source], overwrite=request.overwrite)
    layout, source = open_checkpoint(request.source)
    unchecked = check_model(request.source, source.tensors)
    wanted = _changed(request, source)
    conversion = _begin(request, layout, wanted)
    if left_out := getattr(source, "left_out", []):
        conversion.notes.append(f"{len(left_out)} entries are no tensors and were left out: {', '.join(left_out[:5])}")
    if unchecked is not None:
        conversion.notes.append(unchecked)
    with _opened(request) as out:
        if request.layout == "gguf":
            _write_gguf(request, wanted, conversion, out)
        elif request.with_torchao:
            assert request.quantize is not None
            check_space(request.output, conversion.checks["bytes"])
            conversion.checks |= torchao_weights.write_quantized(request.source, request.quantize, request.dtype, out)
        else:
            check_space(request.output, conversion.checks["bytes"])
            _write(request, wanted, out)
            if request.verify:
                conversion.checks |= _verified(request, wanted, out)
        return _finish(request, conversion, out)


def _check_request(request: CheckpointRequest) -> None:
    suffixes = FILE_SUFFIXES.get(request.layout)
    if suffixes is not None and request.output.suffix not in suffixes:
        raise ConfigError(f"{request.output}: --to {request.layout} writes a file ({', '.join(suffixes)})")
    if suffixes is None and request.output.suffix in (*TORCH_SUFFIXES, ".gguf"):
        raise ConfigError(f"{request.output}: --to {request.layout} writes a directory, and this is a file's name")
    if request.quantize is not None:
        known = [name for name in RECIPES if RECIPES[name] not in WHOLE] if request.layout == "gguf" else (
            torchao_weights.KINDS if request.layout == "safetensors" else ()
        )  # fmt: skip
        if request.quantize not in known:
            what = f"one of {', '.join(known)}" if known else "nothing"
            raise ConfigError(f"--quantize {request.quantize}: --to {request.layout} takes {what}")
    if request.layout == "gguf" and not (request.source / "config.json").is_file():
        raise ConfigError(f"{request.source}: --to gguf needs a model directory with config.json and a tokenizer")
    if request.layout == "gguf" and request.quantize is not None and request.dtype is not None:
        raise ConfigError(f"--dtype has no effect beside --quantize {request.quantize}, which chooses the types")
    if request.with_torchao:
        if request.renames or request.vocab_size or request.vocab_multiple:
            raise ConfigError(f"--quantize {request.quantize} loads the model as it is; rename or resize it before")
        assert request.quantize is not None
        torchao_weights.check_kind(request.quantize)


def _changed(request: CheckpointRequest, source: TensorSource) -> TensorSource:
    """The tensors as they are to be written; for gguf without their type, which each gets from its mixture."""
    wanted: TensorSource = Renamed(source, request.renames)
    if request.rows is not None:
        wanted = Resized(wanted, sizes_by_name(request.source, wanted, request.rows))
    return Cast(wanted, None if request.layout == "gguf" else request.dtype)


def _begin(request: CheckpointRequest, layout: str, wanted: TensorSource) -> Conversion:
    conversion = Conversion("checkpoint", str(request.output))
    path, shapes = request.source, wanted.tensors
    files = describe_files([path], path.parent) if path.is_file() else describe_directory(path)
    conversion.inputs = {str(path): files}
    kinds = Counter(str(shape.dtype).removeprefix("torch.") for shape in shapes.values())
    conversion.options = {
        "from": layout,
        "to": request.layout,
        "dtypes": dict(kinds),
        "renames": dict(request.renames),
        "quantize": request.quantize,
        "vocab_size": request.rows,
    }
    conversion.checks = {"tensors": len(shapes), "bytes": sum(shape.num_bytes for shape in shapes.values())}
    return conversion


def _opened(request: CheckpointRequest) -> AbstractContextManager[Path]:
    opened = new_files if request.is_file else new_directory
    return opened(request.output, [request.source], overwrite=request.overwrite)


def _write(request: CheckpointRequest, wanted: TensorSource, out: Path) -> None:
    match request.layout:
        case "torch":
            write_torch(wanted, out)
            return
        case "dcp":
            write_distributed(wanted, out)
        case _:
            write_safetensors(wanted, request.max_shard_bytes, out)
    if request.source.is_dir() and (request.source / "config.json").is_file():
        if request.dtype is not None or request.rows is not None:
            dtype = None if request.dtype is None else str(request.dtype).removeprefix("torch.")
            write_config(request.source, out, dtype=dtype, vocab_size=request.rows)
        copy_beside(request.source, None, out)


def _write_gguf(request: CheckpointRequest, wanted: TensorSource, conversion: Conversion, out: Path) -> None:
    recipe = request.quantize or _plain_recipe(request, wanted)
    export = gguf_files.prepare(request.source, wanted, recipe, request.rows)
    check_space(request.output, export.num_bytes)
    gguf_files.write(export, out)
    conversion.options |= {"mixture": recipe, "dtypes": dict(Counter(export.types.values()))}
    conversion.checks |= {"tensors": len(export.types), "bytes": export.num_bytes}
    conversion.notes += export.notes()
    if request.verify:
        conversion.checks |= verify_gguf(export, out)


def _plain_recipe(request: CheckpointRequest, wanted: TensorSource) -> str:
    """The mixture without quantisation: of the type that was asked for, or that most tensors have."""
    names = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
    kinds = Counter(entry.dtype for entry in wanted.tensors.values() if entry.dtype in names)
    return names[request.dtype or (kinds.most_common(1)[0][0] if kinds else torch.float32)]


def _verified(request: CheckpointRequest, wanted: TensorSource, out: Path) -> dict[str, Any]:
    """Read the result and hold every tensor against the source."""
    _, written = open_checkpoint(out)
    if dict(written.tensors) != dict(wanted.tensors):
        raise ConvertError(f"{request.output}: names, shapes or types differ from what was to be written")
    for name, entry in wanted.tensors.items():
        if not all(same_bits(written.read(name, rows), wanted.read(name, rows)) for rows in row_parts(entry)):
            raise ConvertError(f"{request.output}: the values of {name} are not those of the source")
    return {"names": "equal", "shapes": "equal", "dtypes": "equal", "values": "equal, bit for bit"}


def _finish(request: CheckpointRequest, conversion: Conversion, out: Path) -> dict[str, Any]:
    """Write the manifest beside the result."""
    files = [out] if request.is_file else [file for file in out.rglob("*") if file.is_file()]
    document = conversion.document() | {"files": describe_files(files, out.parent if request.is_file else out)}
    conversion.write(out.with_name(f"{out.name}.{MANIFEST}") if request.is_file else out / MANIFEST, document)
    return document
