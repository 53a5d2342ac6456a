"""How much memory is in use, how much was at most, and what it comes to when a run goes on."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from llmkit.machine import memory
from llmkit.train.costs import peak_memory_bytes

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
LONG_RUN = 256
"""Steps after which hardly anything is added to the memory in use."""
USUAL_SHARE, USUAL_STEPS = 0.3, 8
"""Rise of the peak for each doubling of the steps, as a share of what a step works with, seen in runs of 60 to 600
steps (0.2 to 0.4); and how many measured steps that experience weighs."""
LARGEST_HEAP_BLOCK = 32 << 20
"""glibc's `DEFAULT_MMAP_THRESHOLD_MAX` on 64-bit systems."""


class MemoryMeter:
    """Memory of the GPU when there is one, else of this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def used(self) -> int:
        """Bytes in use now."""
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return _status("VmRSS") or peak_memory_bytes(self._device)

    def peak(self) -> int:
        """Most bytes in use since `reset`; where the system cannot be told to begin anew, since the process began."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _status("VmHWM") or peak_memory_bytes(self._device)

    def reset(self) -> None:
        """Forget what was in use before."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        with suppress(OSError):
            RESET.write_text("5")

    def limit(self) -> int:
        """Bytes that the device has, or that the machine or its container gives this process."""
        if self._device.type == "cuda":
            return torch.cuda.get_device_properties(self._device).total_memory
        found = memory()
        return min(value for value in (found["total"], found["container_limit"]) if value)

    def free(self) -> int:
        """Bytes that are not in use by anybody now."""
        if self._device.type == "cuda":
            return torch.cuda.mem_get_info(self._device)[0]
        return min(memory()["available"] or self.limit(), self.limit())


def settled_peak(peaks: Sequence[int], num_steps: int, usual_rise: float) -> int:
    """The peak that a run of `num_steps` will have come to, from the peaks after each of its first ones.

    Blocks of ever other sizes leave gaps in the heap, so that the peak goes on rising: like any record of a random
    series, by about the same amount whenever the number of steps doubles. A few steps tell little of that amount, so
    it is held against the usual one.

    Args:
        peaks: at least one; bytes.
        usual_rise: bytes for each doubling, see `usual_rise`; counts as much as `USUAL_STEPS` steps.
    """
    last, seen = min(num_steps, LONG_RUN), len(peaks)
    if last <= seen:
        return max(peaks)
    rise = (_fitted_rise(peaks) * seen + usual_rise * USUAL_STEPS) / (seen + USUAL_STEPS)
    return max(peaks) + int(rise * math.log2(last / seen))


def usual_rise(device: torch.device, working_bytes: int, block_bytes: int) -> float:
    """Bytes that the peak rises by while the number of steps doubles, as runs on CPUs have shown.

    Args:
        working_bytes: what a step takes and gives back.
        block_bytes: of one activation. glibc takes large blocks from the system, and gives them back at once.
    """
    is_kept = device.type == "cpu" and block_bytes < LARGEST_HEAP_BLOCK
    return USUAL_SHARE * working_bytes if is_kept else 0.0


def _fitted_rise(peaks: Sequence[int]) -> float:
    """Slope of a straight line through the peaks over the logarithm of their steps, by least squares."""
    if len(peaks) < 3:
        return 0.0
    places = [math.log2(step) for step in range(1, len(peaks) + 1)]
    center, mean = sum(places) / len(places), sum(peaks) / len(peaks)
    rise = sum((place - center) * (peak - mean) for place, peak in zip(places, peaks, strict=True))
    return rise / sum((place - center) ** 2 for place in places)


class SavedActivations:
    """Counts what the forward pass of one micro-batch keeps for its backward pass.

    Attributes:
        num_bytes: of the tensors kept, each once; weights are not among them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.num_bytes = 0
        self._known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count within the block."""
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept):
            yield

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.num_bytes += storage.nbytes()
        return tensor


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, shared ones once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _status(name: str) -> int:
    """A size from the process's status in bytes; 0 where the system has none."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
