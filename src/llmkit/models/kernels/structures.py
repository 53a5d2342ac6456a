"""What goes over to C++: the structures of the headers beside this file, field by field."""

from ctypes import Structure, c_float, c_int32, c_int64, c_void_p
from typing import ClassVar


class NormTask(Structure):
    """Of `norms.h`."""

    _fields_: ClassVar = [
        ("tokens", c_int64),
        *((name, c_int32) for name in ("heads", "width", "threads")),
        ("eps", c_float),
        *((name, c_void_p) for name in ("input", "weight", "cosines", "sines", "scales")),
    ]


class ScoreTask(Structure):
    """Of `scores.h`."""

    _fields_: ClassVar = [
        *((name, c_int64) for name in ("rows", "words")),
        ("threads", c_int32),
        *((name, c_float) for name in ("factor", "softcap", "temperature")),
        *((name, c_void_p) for name in ("products", "targets", "logprobs", "entropies", "means", "upstream")),
    ]


class RowsTask(Structure):
    """Of `attention.h`."""

    _fields_: ClassVar = [
        *((name, c_int32) for name in (
            "batch", "heads", "kv_heads", "width", "length", "prompt", "prompt_start", "threads",
        )),
        *((name, c_void_p) for name in ("starts", "lengths")),
    ]  # fmt: skip


class SoftmaxTask(Structure):
    """Of `attention.h`."""

    _fields_: ClassVar = [
        ("matrices", c_int64),
        *((name, c_int32) for name in ("queries", "group", "keys", "visible", "first", "kv_heads", "threads")),
        ("scaling", c_float),
        ("lengths", c_void_p),
    ]
