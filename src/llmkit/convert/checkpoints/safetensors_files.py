"""Safetensors files of a chosen size; memory holds a part of a tensor."""

import json
from collections.abc import Mapping
from pathlib import Path

from llmkit.convert.tensor_files import INDEX, WHOLE, SafetensorsWriter, TensorShape
from llmkit.convert.tensor_source import TensorSource, parts
from llmkit.data.preparing.progress import with_progress


def shards(shapes: Mapping[str, TensorShape], max_bytes: int) -> list[list[str]]:
    """Names in their order, divided so that no part is larger; a larger tensor is a part of its own."""
    found: list[list[str]] = []
    size = 0
    for name, shape in shapes.items():
        if not found or (size + shape.num_bytes > max_bytes and found[-1]):
            found.append([])
            size = 0
        found[-1].append(name)
        size += shape.num_bytes
    return found


def write_safetensors(source: TensorSource, max_bytes: int, out: Path) -> None:
    """Write files of at most so many bytes, and where there are several, the index of them."""
    pieces = shards(source.tensors, max_bytes)
    files = [f"model-{number:05}-of-{len(pieces):05}.safetensors" for number in range(1, len(pieces) + 1)]
    files = [WHOLE] if len(pieces) == 1 else files
    progress = iter(with_progress(source.tensors, len(source.tensors), "Writing tensors"))
    for file, piece in zip(files, pieces, strict=True):
        with SafetensorsWriter(out / file, {name: source.tensors[name] for name in piece}) as writer:
            for name in piece:
                next(progress)
                writer.write(name, parts(source, name))
    if len(pieces) > 1:
        index = {
            "metadata": {"total_size": sum(shape.num_bytes for shape in source.tensors.values())},
            "weight_map": {name: file for file, piece in zip(files, pieces, strict=True) for name in piece},
        }
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
