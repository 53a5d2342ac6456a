"""Streams of words, short enough to follow by hand."""

import json
from collections.abc import Sequence
from typing import Any, Self

from llmkit.errors import DataError
from llmkit.types import Row, Source


class Words:
    """A stream of words; the word `unreadable` cannot be read."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.num_open = 0
        self.num_read = 0

    def open(self, position: Any = None) -> "WordReader":
        self.num_open += 1
        return WordReader(self, position or 0)


class WordReader:
    def __init__(self, stream: Words, position: int) -> None:
        self._stream = stream
        self.position = position

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        if self.position >= len(self._stream.words):
            raise StopIteration
        self.position += 1
        self._stream.num_read += 1
        source = Source("words.txt", self.position)
        if self._stream.words[self.position - 1] == "unreadable":
            raise DataError(f"{source}: unreadable")
        return Row({"text": self._stream.words[self.position - 1]}, source)

    def close(self) -> None:
        self._stream.num_open -= 1


class Balanced:
    """Two lists of words; the next row is of the one that has given fewer tokens, as far as they were told."""

    def __init__(self, *lists: Sequence[str]) -> None:
        self.lists = lists
        self.told: list[list[int]] = []

    def open(self, position: Any = None) -> "BalancedReader":
        return BalancedReader(self, position or {"taken": [0, 0], "tokens": [0, 0], "untold": []})


class BalancedReader:
    def __init__(self, stream: Balanced, position: Any) -> None:
        self._stream = stream
        self._state = json.loads(json.dumps(position))

    @property
    def position(self) -> Any:
        return json.loads(json.dumps(self._state))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        state = self._state
        left = [n for n, words in enumerate(self._stream.lists) if state["taken"][n] < len(words)]
        if not left:
            raise StopIteration
        chosen = min(left, key=lambda n: state["tokens"][n] + state["untold"].count(n))
        state["taken"][chosen] += 1
        word = self._stream.lists[chosen][state["taken"][chosen] - 1]
        source = Source(f"{chosen}.txt", state["taken"][chosen])
        if word == "unreadable":
            raise DataError(f"{source}: unreadable")
        state["untold"].append(chosen)
        return Row({"text": word}, source)

    def report(self, num_tokens: Sequence[int]) -> None:
        self._stream.told.append(list(num_tokens))
        for length in num_tokens:
            self._state["tokens"][self._state["untold"].pop(0)] += length

    def close(self) -> None:
        pass
