"""Limits of the machine, and what of them a server's answers need."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llmkit.bench.lengths import Ask
from llmkit.bench.limits import Weights, limits_of, read_weights, shares
from llmkit.bench.load import Sent
from llmkit.bench.machine import usable_cores
from llmkit.bench.serving_figures import Run

WEIGHTS = Weights(num_parameters=1_000_000, num_bytes=2_000_000, dtype="bfloat16")
LIMITS = {"gemm_gflops": 1.0, "memory_gbps": 0.01}


def test_two_requests_at_a_time_share_a_pass_over_the_weights():
    # 2 s each, side by side in 2 s: 2 run on average. 20 tokens drawn and 20 read, 2 million operations each, in 2 s.
    # 10 steps read 2 MB in 2 s: 0.01 GB/s.
    sent = [Sent(0.0, [0.1, 2.0], 10), Sent(0.0, [0.2, 2.0], 10), Sent(0.0, [], 0, "no answer")]
    run = Run([Ask([1] * 10, 10), Ask([1] * 10, 10), Ask([1] * 10, 10)], sent, 2.0)
    found = shares([run], weights=WEIGHTS, limits=LIMITS)
    assert found == pytest.approx({"requests_running": 2.0, "model_flops_share": 0.04, "weight_bandwidth_share": 1.0})


def test_nothing_is_told_of_weights_that_nobody_knows():
    assert shares([], weights=None, limits={}) == {}
    assert read_weights(None) is None
    assert read_weights("no-such/model") is None


def test_headers_tell_the_size_of_a_model(tmp_path: Path):
    save_file({"a": torch.zeros(3, 4, dtype=torch.bfloat16), "b": torch.zeros(2)}, tmp_path / "1.safetensors")
    save_file({"c": torch.zeros(5, dtype=torch.bfloat16)}, tmp_path / "2.safetensors", {"format": "pt"})
    assert read_weights(str(tmp_path)) == Weights(19, 24 + 8 + 10, "bfloat16")


def test_the_limit_in_a_type_is_no_less_than_in_float32(tmp_path: Path):
    cores = usable_cores()[-1:]
    found = limits_of("bfloat16", cores, tmp_path)
    assert found["gemm_gflops"] > 0.5 * limits_of("float32", cores, tmp_path)["gemm_gflops"] > 0
    assert found["memory_gbps"] > 0
