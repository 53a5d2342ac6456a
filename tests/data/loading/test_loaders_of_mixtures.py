"""Loaders with what they meet in a run: files, mixtures, held-out rows, the encoder of supervised fine-tuning."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmkit import plugins
from llmkit.config.resolve import resolve
from llmkit.config.runs import SFTRun
from llmkit.config.schema import BatchConfig, DataConfig, ModelConfig, SFTDataConfig
from llmkit.data.encoders import SampleEncoder
from llmkit.data.formatters import auto
from llmkit.data.loading.loader import Loader, load_prepared, load_rows
from llmkit.data.loading.stream_loader import StreamLoader
from llmkit.data.opening import open_codec
from llmkit.data.preparing.prepared import prepare
from llmkit.data.row_errors import RowErrors
from llmkit.data.splitting import split
from llmkit.types import Sample


@pytest.fixture(scope="module")
def encoder() -> SampleEncoder:
    return SampleEncoder(open_codec(ModelConfig.model_validate({"path": "builtin:tiny-untrained"})), SFTDataConfig())


@pytest.fixture
def open_loader(tmp_path: Path, encoder: SampleEncoder) -> Callable[..., Loader[Sample]]:
    """Opens the training rows of two files, short answers and long ones, interleaved half and half."""
    for name, words in (("short", 3), ("long", 30)):
        rows = ({"prompt": f"{name} {n}", "completion": "word " * (words + n % 5)} for n in range(60))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def training_rows(streaming: bool, by: str) -> Any:
        sources = [{"dataset": {"name": "files", "path": str(tmp_path / f"{n}.jsonl")}} for n in ("short", "long")]
        options = {"strategy": "interleave", "weights_by": by, "streaming": streaming, "sources": sources}
        given = {"dataset": ("dataset", {"name": "mixture", **options})}
        run = resolve(SFTRun, command="train/sft", options=given, environ={}).run
        return split(plugins.load("datasets", "mixture").build(run.dataset), 0.1, seed=0)[0]

    def opened(kind: str, by: str, packing: str, num_workers: int = 0) -> Loader[Sample]:
        rows, formatter = training_rows(kind == "stream", by), auto.build(auto.Config())
        batch = BatchConfig.model_validate({"rows_per_step": 4, "packing": packing})
        common: dict[str, Any] = {"seed": 0, "shuffle": True}
        if kind == "prepared":
            prepared = prepare(rows, formatter, encoder, DataConfig(cache=False))
            return load_prepared(prepared, batch, max_length=512, order=rows.order, **common)
        common |= {"errors": RowErrors("raise", 0), "num_workers": num_workers}
        if kind == "rows":
            return load_rows(rows, formatter, encoder, rows_per_step=4, **common)
        return StreamLoader(rows, formatter, encoder, batch, shuffle_block=16, max_length=512, **common)

    return opened


def steps(loader: Loader[Sample], count: int) -> list[list[tuple[str, int, int]]]:
    """Of each item: its file, its line, its tokens."""
    return [
        [(Path(item.source.path).stem, item.source.line, len(item.token_ids)) for item in loader.next_step()]
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("kind", "by", "packing"),
    [
        ("prepared", "tokens", "none"),
        ("prepared", "rows", "best_fit"),
        ("rows", "rows", "none"),
        ("stream", "rows", "none"),
        ("stream", "tokens", "none"),
        ("stream", "tokens", "best_fit"),
    ],
)
def test_a_mixture_keeps_its_shares_and_resumes(open_loader: Any, kind: str, by: str, packing: str):
    loader = open_loader(kind, by, packing)
    whole, states = [], []
    for _ in range(20):
        states.append(json.dumps(loader.state_dict()))
        whole += steps(loader, 1)
    amounts = {"short": 0, "long": 0}
    for name, _, length in (item for step in whole for item in step):
        amounts[name] += 1 if by == "rows" else length
    # Blocks of 16 rows are shuffled, and lengths are told after a block: a share may be off by about a block's half.
    assert 0.4 < amounts["short"] / sum(amounts.values()) < 0.6
    for number in (1, 7, 16):
        resumed = open_loader(kind, by, packing)
        resumed.load_state_dict(json.loads(states[number]))
        assert steps(resumed, 4) == whole[number : number + 4]


@pytest.mark.parametrize(("kind", "by"), [("rows", "rows"), ("stream", "rows"), ("stream", "tokens")])
def test_processes_change_nothing(open_loader: Any, kind: str, by: str):
    whole = steps(open_loader(kind, by, "none"), 10)
    loader = open_loader(kind, by, "none", num_workers=2)
    assert steps(loader, 5) == whole[:5]
    state = json.dumps(loader.state_dict())
    loader.close()
    resumed = open_loader(kind, by, "none", num_workers=2)
    resumed.load_state_dict(json.loads(state))
    assert steps(resumed, 5) == whole[5:]
    resumed.close()
