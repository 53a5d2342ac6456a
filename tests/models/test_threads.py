"""Training on a CPU keeps off cores that others use."""

from collections.abc import Iterator

import pytest
import torch

from llmkit.config.schema import DeviceConfig
from llmkit.models import threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    yield
    torch.set_num_threads(before)


def busy(monkeypatch: pytest.MonkeyPatch, cores: float | None) -> None:
    monkeypatch.setattr(threads, "busy_cores", lambda: cores)


@pytest.mark.parametrize(("cores", "expected"), [(0.0, 4), (0.3, 4), (0.6, 3), (1.9, 2), (4.0, 1), (None, 4)])
def test_busy_cores_are_left_out(
    cores: float | None, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    busy(monkeypatch, cores)
    threads.set_threads(DeviceConfig.model_validate({}), CPU)
    assert torch.get_num_threads() == expected
    assert ("instead of 4" in capsys.readouterr().err) == (expected < 4)


def test_what_the_run_says_counts_first(monkeypatch: pytest.MonkeyPatch):
    busy(monkeypatch, 4.0)
    threads.set_threads(DeviceConfig.model_validate({"threads": 3}), CPU)
    assert torch.get_num_threads() == 3


def test_then_what_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    busy(monkeypatch, 4.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    threads.set_threads(DeviceConfig.model_validate({}), CPU)
    assert torch.get_num_threads() == 4
