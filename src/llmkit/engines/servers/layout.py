"""Which cores or accelerators each process of each server gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from llmkit import machine
from llmkit.config.servers import ServerEngineConfig
from llmkit.engines.servers.program import Device, Program
from llmkit.errors import ConfigError

Slots = tuple[tuple[int, ...], ...]
"""Cores, or the one accelerator, of each process of a server."""

NAMES: dict[Device, str] = {"cpu": "core", "cuda": "GPU", "npu": "NPU"}
VISIBLE: dict[Device, str] = {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}
"""Variables that show a process some of the machine's accelerators."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a fleet runs on.

    Attributes:
        device: kind of device.
        servers: one entry per server: cores of its processes, or places in `accelerators`.
        accelerators: names by which drivers know them; empty on a CPU.
    """

    device: Device
    servers: tuple[Slots, ...]
    accelerators: tuple[str, ...] = ()

    def variables(self, index: int) -> dict[str, str]:
        """What shows server `index` its own accelerators, and no others."""
        if self.device == "cpu":
            return {}
        return {VISIBLE[self.device]: ",".join(self.accelerators[one] for one, *_ in self.servers[index])}


def lay_out(program: Program, config: ServerEngineConfig, device: str, threads: int | None) -> Layout:
    """Divide this machine among the servers.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`, as `device.device` has it.
        threads: most cores to use; None takes all that this process may run on.
    Raises:
        ConfigError: the program does not run on such a device, or there is not enough of it.
    """
    kind = choose_device(program, device)
    num_processes = config.tp * config.pp
    wanted = f"engine.tp={config.tp} x engine.pp={config.pp} x engine.dp={config.dp}"
    if kind == "cpu":
        cores = machine.usable_cores()[:threads]
        if num_processes * config.dp > len(cores):
            raise ConfigError(
                f"{wanted} needs {num_processes * config.dp} cores, one for each process, and {program.title} has "
                f"{len(cores)} here; lower one of them{'' if threads is None else ' or raise device.threads'}"
            )
        servers = (divide(block, num_processes) for block in divide(cores, config.dp))
        return Layout("cpu", tuple(servers))
    names = accelerators(kind)
    chosen = list(config.gpus) or list(range(len(names)))
    if absent := [number for number in chosen if number >= len(names)]:
        raise ConfigError(f"engine.gpus names {NAMES[kind]} {absent[0]}, and this machine has {len(names)}, from 0")
    if num_processes * config.dp > len(chosen):
        raise ConfigError(f"{wanted} needs {num_processes * config.dp} {NAMES[kind]}s, and there are {len(chosen)}")
    firsts = range(0, num_processes * config.dp, num_processes)
    servers = (tuple((number,) for number in chosen[first : first + num_processes]) for first in firsts)
    return Layout(kind, tuple(servers), tuple(names))


def choose_device(program: Program, device: str) -> Device:
    """What the program shall run on here.

    Raises:
        ConfigError: it cannot run on what was asked for, or on anything that is here.
    """
    able: list[Device] = [one for one in program.devices if one == "cpu" or accelerators(one)]
    if device == "auto" and able:
        return able[0]
    if device in able:
        return next(one for one in able if one == device)
    if device not in ("auto", *program.devices):
        raise ConfigError(
            f"device.device={device}: {program.title} runs on {' and '.join(program.devices)}; leave device.device out"
        )
    missing = NAMES[program.devices[0] if device == "auto" else device]  # type: ignore[index]
    raise ConfigError(f"{program.title} needs at least one {missing}, and this machine shows none")


def accelerators(device: Device) -> list[str]:
    """Those that are here, as their drivers call them."""
    return machine.nvidia_gpus() if device == "cuda" else machine.ascend_npus() if device == "npu" else []


def divide(items: Sequence[int], num_parts: int) -> Slots:
    """Neighbours stay together; the first parts get one more where it does not come out even."""
    size, rest = divmod(len(items), num_parts)
    bounds = [part * size + min(part, rest) for part in range(num_parts + 1)]
    return tuple(tuple(items[start:end]) for start, end in pairwise(bounds))
