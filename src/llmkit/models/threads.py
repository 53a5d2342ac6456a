"""How many CPU threads to compute with, and how many of its kernels PyTorch keeps."""

import os

import torch

from llmkit.config.schema import DeviceConfig
from llmkit.machine import busy_cores
from llmkit.terminal import warn

KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Variables that bound the kernels that oneDNN and PyTorch's bridge to it keep for each shape of a matrix product."""


def bound_kernel_caches() -> None:
    """Keep few kernels, unless the environment says how many; to be called before the first matrix product.

    Packed batches have a new number of tokens in each step, so the default of 1024 kernels fills up and takes
    gigabytes.
    """
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, "64")


def set_threads(config: DeviceConfig, device: torch.device) -> None:
    """Use what the run or `OMP_NUM_THREADS` says; otherwise leave out the cores that other processes keep busy.

    Threads wait for each other after every operation. One that shares its core holds all of them up, which makes two
    threads on one and a half cores ten times slower than one thread.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
        return
    threads = torch.get_num_threads()
    if device.type != "cpu" or os.environ.get("OMP_NUM_THREADS") or threads == 1:
        return
    busy = busy_cores() or 0.0
    free = max(1, int(len(os.sched_getaffinity(0)) - busy + 0.5)) if hasattr(os, "sched_getaffinity") else threads
    if free < threads:
        torch.set_num_threads(free)
        warn(
            f"other processes keep {busy:.1f} cores busy, so this run computes with {free} instead of "
            f"{threads} threads; --threads {threads} takes them all"
        )
