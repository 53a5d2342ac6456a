"""Which server a request goes to: the one that knows the beginning of its prompt, or the one with the least to do."""

from collections import OrderedDict
from collections.abc import Sequence

SHORTEST = 32
"""Tokens of the shortest beginning that is worth following."""
MOST_BEGINNINGS = 1 << 16
"""Beginnings that are remembered; the oldest go first."""
SHARE = 0.5
"""Of a prompt, that a server must know for the prompt to follow it there."""
SLACK = 8
"""Completions that a followed server may have more than one and a half times those of the least busy one."""


class Balance:
    """Remembers which server has computed which beginnings of prompts.

    Requests with one prompt (a group), and the turns of one conversation, so go where their prefix is in the cache. A
    server that has much more to do than the least busy one is not followed: its group goes on elsewhere.
    """

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[str, int], int] = OrderedDict()

    def choose(self, prompt_ids: Sequence[int], salt: str, loads: dict[int, int]) -> int:
        """One of some servers.

        Args:
            prompt_ids: of the request.
            salt: of adapter and cache: what is computed under another one is of no use.
            loads: completions that each server is drawing, by its index; at least one server.
        """
        beginnings = [(salt, hash(tuple(prompt_ids[:length]))) for length in _lengths(len(prompt_ids))]
        place = self._known(beginnings, len(prompt_ids), loads)
        if place is None:
            place = min(loads, key=lambda index: (loads[index], index))
        for beginning in beginnings:
            self._places[beginning] = place
            self._places.move_to_end(beginning)
        while len(self._places) > MOST_BEGINNINGS:
            self._places.popitem(last=False)
        return place

    def _known(self, beginnings: Sequence[tuple[str, int]], size: int, loads: dict[int, int]) -> int | None:
        least = min(loads.values())
        lengths = _lengths(size)
        for beginning, length in zip(beginnings[::-1], lengths[::-1], strict=True):
            if length < SHARE * size:
                return None
            place = self._places.get(beginning)
            if place in loads and loads[place] <= 1.5 * least + SLACK:
                return place
        return None


def _lengths(size: int) -> list[int]:
    """The whole prompt, and beginnings of 32, 48, 64, 96, 128 tokens and so on."""
    lengths = []
    length = SHORTEST
    while length < size:
        lengths += [length, length + length // 2]
        length *= 2
    return [*(one for one in lengths if one < size), size]
