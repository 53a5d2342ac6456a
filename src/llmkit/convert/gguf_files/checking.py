"""A GGUF file read back and held against what it was made from."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmkit.convert.casting import same_bits
from llmkit.convert.gguf_files.command import Export
from llmkit.convert.gguf_files.encoding import PLAIN, decode, num_bytes
from llmkit.convert.gguf_files.recipes import BLOCKS
from llmkit.convert.tensor_source import row_parts
from llmkit.errors import ConvertError

BOUNDS: Mapping[str, float] = {
    "Q8_0": 0.0045, "Q4_0": 0.126, "Q4_1": 0.07, "Q5_0": 0.0635, "Q5_1": 0.035, "Q4_K": 0.16, "Q5_K": 0.09,
    "Q6_K": 0.05,
}  # fmt: skip
"""How far a number may be off, as a share of the largest in its block: half a step of the type (a whole one where its
levels do not reach the other sign), and for k-quants what the rounding of the scales adds."""
SMALLEST = 1e-5
"""Off by this little is right: scales have 16 bits, and those of very small numbers are 0."""


def verify(export: Export, out: Path) -> dict[str, Any]:
    """Read the file; returns what was found.

    Raises:
        ConvertError: it is not what was to be written.
    """
    import gguf

    reader = gguf.GGUFReader(out)
    found = {tensor.name: tensor for tensor in reader.tensors}
    wanted = {name: (kind, export.tensors.tensors[name].shape) for name, kind in export.types.items()}
    read = {
        name: (one.tensor_type.name, tuple(int(size) for size in reversed(one.shape))) for name, one in found.items()
    }
    if read != wanted:
        raise ConvertError(f"{out.name}: names, shapes or types differ from what was to be written")
    field = reader.get_field("tokenizer.ggml.tokens")
    num_tokens = 0 if field is None else len(field.data)
    if num_tokens != export.config.vocab_size:
        raise ConvertError(f"{out.name}: holds {num_tokens} tokens, and the model has {export.config.vocab_size} rows")
    squares = lost = 0.0
    for name, kind in export.types.items():
        flat = found[name].data.reshape(-1).view("uint8")
        done = 0
        for rows in row_parts(export.tensors.tensors[name]):
            expected = export.tensors.read(name, rows)
            size = num_bytes(kind, tuple(expected.shape))
            stored = decode(flat[done : done + size], kind, tuple(expected.shape))
            done += size
            part_squares, part_lost = _compared(name, kind, expected, stored)
            squares, lost = squares + part_squares, lost + part_lost
    exact = all(kind in PLAIN for kind in export.types.values())
    values = "equal, bit for bit" if exact else "within the error of their types"
    error = math.sqrt(lost / squares) if squares else 0.0
    return {"names": "equal", "shapes": "equal", "dtypes": "equal", "values": values, "relative_error": error}


def _compared(name: str, kind: str, expected: Tensor, stored: Tensor) -> tuple[float, float]:
    """Sum of squares of the numbers, and of what they are off."""
    if kind in PLAIN and not same_bits(stored, expected.to(PLAIN[kind])):
        raise ConvertError(f"the values of {name} are not those of the source")
    exact, found = expected.float(), stored.float()
    off = (exact - found).abs()
    if kind not in PLAIN:
        largest = exact.reshape(-1, BLOCKS[kind]).abs().amax(-1, keepdim=True)
        allowed = BOUNDS[kind] * largest + SMALLEST
        if not bool((off.reshape(-1, BLOCKS[kind]) <= allowed).all()):
            raise ConvertError(
                f"the values of {name} differ by more than {kind} explains (at most {off.max().item():.3g})"
            )
    return exact.square().sum(dtype=torch.float64).item(), off.square().sum(dtype=torch.float64).item()
