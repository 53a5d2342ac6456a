"""What products of matrices and copies reach, on the cores and with the threads of a contender."""

from typing import Any

from llmkit.bench.machine import COPIED_BYTES, best_seconds
from llmkit.bench.peers.serving import Answer, serve

MATRIX = 2048


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Have the matrices ready; `dtypes` of the settings are those that may be computed in."""
    import torch

    torch.set_num_threads(len(settings["cores"]))

    def gflops(dtype: str) -> float:
        left, right = (torch.rand(MATRIX, MATRIX, dtype=getattr(torch, dtype)) for _ in range(2))
        return 2 * MATRIX**3 / best_seconds(lambda: torch.mm(left, right)) / 1e9

    def measure() -> Answer:
        source = torch.ones(COPIED_BYTES, dtype=torch.uint8)
        target = torch.empty_like(source)
        copied = 2 * COPIED_BYTES / best_seconds(lambda: target.copy_(source)) / 1e9
        return {"gemm_gflops": max(map(gflops, settings["dtypes"])), "memory_gbps": copied}

    return {"measure": measure}


if __name__ == "__main__":
    serve(prepare)
