"""A formatter and an encoder that spawned processes can import: every character of a text is a token."""

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmkit.data.contract import Encoded
from llmkit.errors import DataError
from llmkit.types import PreferencePair, Record, Row, Sample, Source


def sample(text: str, source: Source) -> Sample:
    """The text's characters, each after the first with weight 1."""
    return Sample([ord(character) for character in text], [0.0, *[1.0] * (len(text) - 1)], source)


def row(text: Any, line: int = 1, path: str = "train.jsonl") -> Row:
    """A row with a text."""
    return Row({"text": text}, Source(path, line))


def rows(*texts: Any) -> list[Row]:
    """A row for each text."""
    return [row(text, line) for line, text in enumerate(texts, start=1)]


class TextFormatter:
    """Rows `{"text": ...}`."""

    def score(self, rows: Sequence[Row]) -> float:
        return 1.0

    def to_record(self, row: Row) -> Record:
        if not isinstance(row.values["text"], str):
            raise DataError(f"{row.source}: 'text' must be text")
        return Record((), row.source, text=row.values["text"])

    def from_record(self, record: Record) -> dict[str, Any]:
        return {"text": record.text}


@dataclass
class CharacterEncoder:
    """Texts become samples. Some words make it do what real ones do on a bad day.

    Attributes:
        max_length: longer texts are dropped, or split.
        split: divide them.
        log: file that gets a line for each call, with the process that made it.
    """

    max_length: int = 1000
    split: bool = False
    log: str | None = None

    def __call__(self, records: Sequence[Record]) -> list[Encoded[Sample] | DataError]:
        if self.log is not None:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {os.environ.get('TOKENIZERS_PARALLELISM')} {len(records)}\n")
        return [self._encode(record) for record in records]

    def _encode(self, record: Record) -> Encoded[Sample] | DataError:
        text = record.text or ""
        match text:
            case "faulty":
                return DataError(f"{record.source}: faulty")
            case "bug":
                raise ZeroDivisionError("a bug of ours")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(600)
        if len(text) > self.max_length and not self.split:
            return Encoded((), "dropped")
        pieces = [text[start : start + self.max_length] for start in range(0, len(text), self.max_length)]
        items = tuple(sample(piece, record.source) for piece in pieces)
        num_trained = sum(len(piece) - 1 for piece in pieces)
        return Encoded(items, "split" if len(items) > 1 else "kept", len(text), num_trained)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.max_length} {self.split}".encode()).hexdigest()


class PairEncoder:
    """Texts become pairs: the text, and the text backwards."""

    def __call__(self, records: Sequence[Record]) -> list[Encoded[PreferencePair] | DataError]:
        return [
            Encoded((PreferencePair(sample(text, record.source), sample(text[::-1], record.source)),), "kept", 2, 1)
            for record in records
            for text in [record.text or ""]
        ]

    def fingerprint(self) -> str:
        return "pairs"


class Texts:
    """A data set of texts that counts how often it is read; a text that is an exception is raised.

    Attributes:
        name: decides the fingerprint, with the texts.
        num_read: rows that were read.
        seconds: how long it takes to read one.
    """

    def __init__(self, texts: Sequence[Any], name: str = "train.jsonl", seconds: float = 0.0) -> None:
        self.texts = list(texts)
        self.name = name
        self.seconds = seconds
        self.num_read = 0

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Row:
        self.num_read += 1
        time.sleep(self.seconds)
        if isinstance(self.texts[index], BaseException):
            raise self.texts[index]
        return row(self.texts[index], index + 1, self.name)

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.name, self.texts)).encode()).hexdigest()


class NamelessTexts(Texts):
    """The same without a fingerprint."""

    fingerprint = None  # type: ignore[assignment]
