"""Many requests, many of them left in the middle: nothing stays behind."""

import asyncio
import os
import random

import aiohttp
import pytest
from tests.serve.conftest import HELLO, KEY, LONG, MODEL, Server


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_clients_that_leave_leave_nothing_behind(server: Server, count: int):
    descriptors = f"/proc/{server.process.pid}/fd"
    asyncio.run(ask(server, 20, seed=0))
    server.wait_for("llmkit_requests_running", 0)
    before = len(os.listdir(descriptors))
    statuses = asyncio.run(ask(server, count, seed=1))
    assert set(statuses) <= {200, 0}
    assert statuses.count(0) > count // 10, "some were left"
    server.wait_for("llmkit_requests_running", 0)
    server.wait_for("llmkit_requests_waiting", 0)
    assert len(os.listdir(descriptors)) <= before + 2


async def ask(server: Server, count: int, seed: int) -> list[int]:
    """Statuses of the requests; 0 for those that were left."""
    draw = random.Random(seed)
    gate = asyncio.Semaphore(32)
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:

        async def one(body: dict[str, object], patience: float | None) -> int:
            async with gate:
                try:
                    async with asyncio.timeout(patience):
                        async with session.post(f"{server.url}/v1/chat/completions", json=body) as response:
                            await response.read()
                            return response.status
                except TimeoutError:
                    return 0

        def make() -> tuple[dict[str, object], float | None]:
            leaves = draw.random() < 0.3
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": draw.random() < 0.5}
            return {**body, "seed": LONG if leaves else HELLO}, draw.uniform(0.001, 0.05) if leaves else None

        return list(await asyncio.gather(*(one(*make()) for _ in range(count))))
