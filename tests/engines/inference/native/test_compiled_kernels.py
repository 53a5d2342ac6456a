"""The kernels go through Triton's compiler and NVIDIA's assembler for real GPUs, none of which is needed for that."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from llmkit.engines.inference.native.cuda import attention, kernels
from llmkit.engines.inference.native.cuda.attention import Places, Scores, Tiles
from llmkit.engines.inference.native.paged_attention import LayerCache, LayerShape

SMALLEST_SHARED = 99 << 10
"""Bytes of shared memory that a program can have on the GPUs that have least of it (compute 8.6, 8.9 and 12.0)."""
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int32: "i32"}
Shape = tuple[LayerShape, int, dict[str, Any]]
LLAMA: Shape = (LayerShape(8, 128, 128, torch.bfloat16, torch.bfloat16), 4, {})
QWEN2: Shape = (LayerShape(2, 64, 64, torch.float16, torch.float16), 7, {})
GEMMA2: Shape = (LayerShape(4, 256, 256, torch.bfloat16, torch.bfloat16), 2, {"softcap": 50.0, "window": 4096})
GPT_OSS: Shape = (LayerShape(8, 64, 64, torch.bfloat16, torch.bfloat16), 8, {"sinks": True, "window": 128})
DEEPSEEK: Shape = (LayerShape(16, 192, 128, torch.bfloat16, torch.bfloat16), 1, {})
FALCON: Shape = (LayerShape(1, 64, 64, torch.bfloat16, torch.bfloat16), 71, {})
WIDE: Shape = (LayerShape(1, 256, 256, torch.float32, torch.float32), 4, {})


class Recorder:
    """Stands for a kernel and compiles what it would be launched with."""

    def __init__(self, kernel: Any, capability: int) -> None:
        self.kernel, self.target = kernel, GPUTarget("cuda", capability, 32)
        self.compiled: list[Any] = []

    def __getitem__(self, grid: Sequence[int]) -> Callable[..., None]:
        assert all(0 < size < 1 << 31 for size in grid)
        return self.launch

    def launch(self, *args: Any, num_warps: int = 4, num_stages: int = 3, **constants: Any) -> None:
        given = dict(zip(self.kernel.arg_names, args, strict=False))
        assert set(given) | set(constants) == set(self.kernel.arg_names)
        signature, attributes = dict.fromkeys(constants, "constexpr"), {}
        for param in self.kernel.params:
            if param.name not in given:
                continue
            value = given[param.name]
            divisible = isinstance(value, torch.Tensor) and not param.do_not_specialize_on_alignment
            if isinstance(value, torch.Tensor):
                signature[param.name] = f"*{TYPES[value.dtype]}"
            elif isinstance(value, float):
                signature[param.name] = "fp32"
            elif value == 1 and not param.do_not_specialize:
                signature[param.name] = "constexpr"
                constants[param.name] = 1
            else:
                signature[param.name] = "i32"
                divisible = value % 16 == 0 and not param.do_not_specialize
            if divisible:
                attributes[(param.num,)] = [["tt.divisibility", 16]]
        signature = {name: signature[name] for name in self.kernel.arg_names}
        source = ASTSource(self.kernel, signature, constants, attributes)
        options = {"num_warps": num_warps, "num_stages": num_stages}
        self.compiled.append(triton.compile(source, target=self.target, options=options))


@pytest.mark.parametrize(
    ("shape", "groups", "options", "capability"),
    [
        pytest.param(*shape, capability, id=f"{name} on {capability / 10}")
        for name, shape, capabilities in (
            ("Llama", LLAMA, (80, 90, 120)),
            ("Qwen2", QWEN2, (80, 90)),
            ("Gemma 2", GEMMA2, (89, 90)),
            ("GPT-OSS", GPT_OSS, (90,)),
            ("DeepSeek-V3", DEEPSEEK, (90,)),
            ("Falcon", FALCON, (80,)),
            ("float32", WIDE, (120,)),
        )
        for capability in capabilities
    ],
)
def test_kernels_compile_for_gpus_and_fit_them(
    shape: LayerShape, groups: int, options: dict[str, Any], capability: int, monkeypatch: pytest.MonkeyPatch
):
    recorders = {kind: Recorder(getattr(kernels, kind), capability) for kind in ("store", "attend", "combine")}
    for kind, recorder in recorders.items():
        monkeypatch.setattr(kernels, kind, recorder)
    heads, tokens = shape.kv_heads * groups, 6
    cache = LayerCache.empty(shape, 4, torch.device("cpu"))
    numbers = torch.zeros(tokens, dtype=torch.int32)
    query = torch.zeros(1, tokens, heads, shape.key_width, dtype=shape.key_dtype).transpose(1, 2)[0]
    key = torch.zeros(shape.kv_heads, tokens, shape.key_width, dtype=shape.key_dtype)
    value = torch.zeros(shape.kv_heads, tokens, shape.value_width, dtype=shape.value_dtype)
    out = torch.zeros(tokens, heads, shape.value_width, dtype=shape.value_dtype)
    sinks = torch.zeros(heads, dtype=shape.key_dtype) if options.get("sinks") else None
    scores = Scores(0.125, options.get("window", 0), options.get("softcap"), sinks)
    attention.store(cache, key, value, numbers)
    for num_programs in (1, 264):
        places = Places(numbers, numbers, torch.zeros(tokens, 4, dtype=torch.int32), num_programs)
        attention.attend_drawn(query[:, :2], cache, places, scores, out[:2])
    tiles = Tiles(numbers, numbers, numbers, attention.tile_size(groups, shape.key_width * shape.key_dtype.itemsize))
    attention.attend_read(query, cache, places, scores, tiles, out)
    assert len(recorders["store"].compiled) == 1
    assert len(recorders["attend"].compiled) == 3
    assert len(recorders["combine"].compiled) >= 1
    for compiled in [one for recorder in recorders.values() for one in recorder.compiled]:
        assert compiled.metadata.shared <= SMALLEST_SHARED
        assert "cubin" in compiled.asm
    for compiled in recorders["attend"].compiled:
        on_tensor_cores = any(word in compiled.asm["ptx"] for word in ("mma.sync", "wgmma"))
        assert on_tensor_cores == (shape.key_dtype != torch.float32)
