"""Loaders draw from mixtures: the shares arrive in the steps, and a saved state goes on to the sample."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmkit.config.schema import BatchConfig, DataConfig
from llmkit.data.contract import Encoded, Ordered
from llmkit.data.formatters import text
from llmkit.data.loading.loader import load_prepared
from llmkit.data.loading.stream_loader import StreamLoader
from llmkit.data.mixtures.mixture_data import Mixture
from llmkit.data.mixtures.mixture_source import MixtureRules, MixtureSource
from llmkit.data.mixtures.mixture_stream import MixtureStream
from llmkit.data.preparing.prepared import prepare
from llmkit.data.row_errors import RowErrors
from llmkit.data.splitting import split
from llmkit.data.stream_views import DatasetStream
from llmkit.errors import DataError
from llmkit.types import Record, Row, Sample, Source

LENGTHS = {"short": 5, "long": 20}
FORMATTER: Any = text.build(text.Config())
RULES = MixtureRules("interleave", True, "all_exhausted")


@dataclass
class Rows:
    """Rows of text; every seventh cannot be read by the formatter."""

    name: str
    num_rows: int
    has_faults: bool = False

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Row | Record:
        column = "other" if self.has_faults and index % 7 == 3 else "text"
        return Row({column: "words"}, Source(self.name, index + 1))


class Encoder:
    """Rows of `short` become 5 tokens, those of `long` 20; every fifth row is dropped."""

    def __call__(self, records: Sequence[Record]) -> Sequence[Encoded[Sample] | DataError]:
        return [self._encoded(record.source) for record in records]

    def fingerprint(self) -> str:
        return "of this test"

    def _encoded(self, source: Source) -> Encoded[Sample]:
        if source.line % 5 == 0:
            return Encoded((), "dropped")
        length = LENGTHS[source.path]
        return Encoded((Sample([1] * length, [1.0] * length, source),), "kept", length, length)


def sources(wrap: Any, **options: Any) -> list[MixtureSource[Any]]:
    shares = {"short": (60, 1.0), "long": (90, 3.0)}
    return [
        MixtureSource(wrap(Rows(name, num_rows, **options)), FORMATTER, weight, "", None)
        for name, (num_rows, weight) in shares.items()
    ]


def places(samples: Sequence[Sample]) -> list[str]:
    return [str(sample.source) for sample in samples]


def skip() -> RowErrors:
    return RowErrors("skip", 10_000)


def stream_loader(data: MixtureStream, *, rank: int = 0, world_size: int = 1) -> StreamLoader[Sample]:
    return StreamLoader(
        data, FORMATTER, Encoder(), BatchConfig(rows_per_step=6), seed=3, shuffle=True, shuffle_block=25,
        max_length=64, errors=skip(), num_workers=0, rank=rank, world_size=world_size,
    )  # fmt: skip


@pytest.mark.parametrize("is_split", [False, True])
def test_a_stream_by_tokens_goes_on_to_the_sample_at_every_step(is_split: bool):
    data: Any = MixtureStream(sources(DatasetStream, has_faults=True), RULES)
    if is_split:
        data = split(data, 0.3, 0)[0]
    loader = stream_loader(data)
    states, steps = [], []
    for _ in range(60):
        states.append(json.loads(json.dumps(loader.state_dict())))
        steps.append(places(loader.next_step()))
    assert loader.epoch > 1
    for number in range(58):
        again = stream_loader(data)
        again.load_state_dict(states[number])
        assert [places(again.next_step()) for _ in range(2)] == steps[number : number + 2], f"from step {number}"
        again.close()
    loader.close()


def test_a_stream_by_tokens_has_the_shares_in_what_is_trained():
    loader = stream_loader(MixtureStream(sources(DatasetStream), RULES))
    tokens = Counter()
    for _ in range(200):
        for sample in loader.next_step():
            tokens[sample.source.path] += len(sample.token_ids)
    loader.close()
    # A block of 25 rows is chosen by the lengths of those before it, so that it is off by a few rows at most.
    assert tokens["long"] / tokens.total() == pytest.approx(0.75, abs=0.02)


def test_a_data_set_by_tokens_has_the_shares_in_every_stretch_of_the_epoch(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path))
    data: Any = split(Mixture(sources(lambda rows: rows), RULES), 0.2, 1)[0]
    assert isinstance(data, Ordered)
    prepared = prepare(data, FORMATTER, Encoder(), DataConfig(max_length=64, cache=False))

    def load():
        return load_prepared(
            prepared, BatchConfig(rows_per_step=4), seed=0, shuffle=True, max_length=64, order=data.order
        )  # fmt: skip

    loader = load()
    trained: list[Sample] = []
    for step in range(30):
        trained += loader.next_step()
        short = sum(len(sample.token_ids) for sample in trained if sample.source.path == "short")
        expected = sum(len(sample.token_ids) for sample in trained) / 4
        assert abs(short - expected) <= 20, f"after step {step}"
    again = load()
    again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert [places(again.next_step()) for _ in range(5)] == [places(loader.next_step()) for _ in range(5)]
