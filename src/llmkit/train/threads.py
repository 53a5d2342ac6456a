"""How many CPU threads to compute with."""

import os

import torch

from llmkit.config.schema import DeviceConfig
from llmkit.machine import busy_cores
from llmkit.train.console import warn


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
            f"other processes keep {busy:.1f} cores busy, so this run computes with {free} threads instead of "
            f"{threads}; --threads {threads} takes them all"
        )
