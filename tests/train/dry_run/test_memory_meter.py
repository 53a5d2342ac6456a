import pytest
import torch
from torch import nn

from llmkit.train.dry_run.memory_meter import MemoryMeter, SavedActivations, settled_peak, tensor_bytes, usual_rise

CPU = torch.device("cpu")


def test_a_peak_that_rises_with_every_doubling_goes_on():
    # 100 more at steps 2, 4 and 8: three doublings later, at step 64, it is 300 more; past 256 nothing is added.
    peaks = [1000, 1100, 1158, 1200, 1232, 1258, 1281, 1300]
    assert settled_peak(peaks, 64, usual_rise=100.0) == pytest.approx(1600, abs=5)
    assert settled_peak(peaks, 256, 100.0) == settled_peak(peaks, 10_000, 100.0) == pytest.approx(1800, abs=5)


def test_few_steps_are_held_against_what_is_usual():
    assert settled_peak([1000, 1000], 8, usual_rise=100.0) == 1000 + int(100 * 8 / 10 * 2)
    assert settled_peak([1000] * 8, 16, usual_rise=100.0) == 1050
    assert settled_peak([1000], 1, usual_rise=100.0) == 1000


def test_large_blocks_and_gpus_leave_no_gaps():
    assert usual_rise(CPU, 1000, block_bytes=1 << 20) == pytest.approx(300)
    assert usual_rise(CPU, 1000, block_bytes=1 << 26) == 0
    assert usual_rise(torch.device("cuda"), 1000, block_bytes=1 << 20) == 0


def test_counts_what_backward_needs_once_and_no_weights():
    layer = nn.Linear(8, 4, bias=False)
    inputs = torch.randn(16, 8)
    saved = SavedActivations(layer)
    with saved.counting():
        found = layer(inputs)
        (found.exp() + layer(inputs)).sum().backward()
    # The inputs, which both products keep, and the result of exp.
    assert saved.num_bytes == 4 * (16 * 8 + 16 * 4)


def test_shared_tensors_weigh_once():
    tensor = torch.zeros(10)
    assert tensor_bytes([tensor, tensor[:5], torch.zeros(3)]) == 40 + 12


def test_the_peak_follows_what_is_used():
    meter = MemoryMeter(CPU)
    meter.reset()
    before = meter.peak()
    block = torch.ones(50_000_000, dtype=torch.uint8)
    assert meter.peak() >= before + 0.9 * block.numel()
    assert 0 < meter.free() <= meter.limit()
