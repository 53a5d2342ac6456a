"""Which protections of the sandbox hold on this machine, found out by trying to get around them."""

import asyncio
import json
from dataclasses import dataclass

from llmkit.rollout.sandbox.config import SandboxConfig
from llmkit.rollout.sandbox.sandbox import Sandbox

SECONDS = 30.0
"""For the attempts; each takes milliseconds."""
ATTEMPTS = """
import ctypes, json, os, socket

def holds(attempt):
    try:
        return bool(attempt())
    except (OSError, MemoryError):
        return True

def forks():
    children = []
    try:
        for _ in range(64):
            child = os.fork()
            if not child:
                import signal
                signal.pause()
            children.append(child)
        return False
    finally:
        for child in children:
            os.kill(child, 9)

def connects():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))

print(json.dumps({
    "processes": os.getppid() == 1,
    "network": holds(connects),
    "files": not os.path.exists("/etc/passwd") and holds(lambda: open("/usr/llmkit", "w").close()),
    "memory": holds(lambda: bytearray(1 << 34) and False),
    "fork limit": holds(forks),
    "system calls": ctypes.CDLL(None).unshare(0x10000000) != 0,
}))
"""


@dataclass(frozen=True)
class Protections:
    """What was found.

    Attributes:
        holding: by name: `processes` (sees none but its own), `network` (has none), `files` (sees Python alone, writes
            in memory alone), `memory`, `fork limit`, `system calls` (makes no namespaces of its own).
        problem: why programs cannot be isolated; empty when they are.
    """

    holding: dict[str, bool]
    problem: str = ""


def find_protections() -> Protections:
    """Try them in a program of its own; takes a fraction of a second."""
    return asyncio.run(_find())


async def _find() -> Protections:
    sandbox = Sandbox(SandboxConfig.model_validate({"timeout_seconds": SECONDS, "allow_unisolated": True}))
    await sandbox.start()
    ran = await sandbox.run(ATTEMPTS)
    if ran.exit_code != 0:
        return Protections({}, f"the probe failed: {ran.stderr[-200:] or ran.exit_code}")
    return Protections(json.loads(ran.stdout), sandbox.problem)
