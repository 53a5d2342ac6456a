import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.counts import RowCounts
from llmkit.testing.samples import record
from llmkit.train.prompt_queue import PromptQueue
from llmkit.types import Record


class Counting:
    """A loader of steps of four: the prompts are 0, 1, 2 ..."""

    num_rows = None
    epoch = 0.0

    def __init__(self) -> None:
        self.at = 0
        self.counts = RowCounts()
        self.closed = False

    def next_step(self) -> list[Record]:
        step = [record(str(self.at + index)) for index in range(4)]
        self.at += 4
        self.counts.rows += 4
        return step

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: Any) -> None:
        self.at = state["at"]
        self.counts.rows = state["at"]

    def num_steps(self, num_epochs: float) -> int:
        return round(num_epochs * 5)

    def read_all(self, limit: int | None = None) -> list[Record]:
        return []

    def first(self, count: int) -> list[Record]:
        return []

    def close(self) -> None:
        self.closed = True


def numbers(records: list[Record]) -> list[int]:
    return [int(one.messages[0].text) for one in records]


def test_prompts_come_in_order_in_any_number():
    queue = PromptQueue(Counting())
    assert [numbers(queue.take(count)) for count in (4, 1, 2, 6, 3)] == [
        [0, 1, 2, 3], [4], [5, 6], [7, 8, 9, 10, 11, 12], [13, 14, 15],
    ]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 9))
def test_resumed_anywhere_it_goes_on_with_the_next_prompt(before: list[int], count: int):
    queue = PromptQueue(Counting())
    for size in before:
        queue.take(size)
    resumed = PromptQueue(Counting())
    resumed.load_state_dict(json.loads(json.dumps(queue.state_dict())))
    assert resumed.state_dict() == queue.state_dict()
    assert numbers(resumed.take(count)) == numbers(queue.take(count))
    assert resumed.counts == queue.counts


def test_the_loader_is_closed_and_counted():
    loader = Counting()
    queue = PromptQueue(loader)
    queue.take(5)
    queue.close()
    assert loader.closed
    assert queue.counts.rows == 8
    assert queue.num_steps(2) == 10
