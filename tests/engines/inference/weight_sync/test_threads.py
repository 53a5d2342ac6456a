import asyncio
import threading

import pytest

from llmkit.engines.inference.weight_sync.threads import in_thread


def test_results_and_errors_come_back():
    async def story():
        assert await in_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await in_thread(divmod, 1, 0)

    asyncio.run(story())


def test_work_that_is_given_up_keeps_no_loop_from_ending():
    gate, done = threading.Event(), threading.Event()

    def stuck():
        gate.wait(60)
        done.set()

    async def story():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(stuck), 0.05)

    asyncio.run(story())
    assert not done.is_set()
    gate.set()
    assert done.wait(60)
