"""Times compare only where everyone makes the same tokens and masks."""

from types import SimpleNamespace

import pytest

from llmkit.bench import tokenizing
from llmkit.bench.machine import ForeignLoad, usable_cores
from llmkit.bench.material import make_material
from llmkit.bench.setup import Setup
from llmkit.errors import BenchError


@pytest.fixture
def made(tmp_path, monkeypatch):
    """What llmkit and the row-by-row peer make of the same chats."""
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
    material = make_material(None, None, 30, tmp_path)
    setup = Setup(tmp_path, tuple(usable_cores()[-1:]), 1, None, {}, ForeignLoad())
    settings = {"rows": str(material.rows), "tokenizer": str(material.tokenizer), "max_length": 1 << 16}
    with setup.peer("theirs", "row_by_row", settings) as theirs:
        theirs.ask("run")
        their_results = theirs.ask("results")
    with setup.ours("ours", "tokenizing", settings) as ours:
        return ours.ask("results"), their_results


def test_our_tokens_and_masks_are_those_of_the_tokenizers_own_template(made):
    ours, theirs = made
    assert len(ours["digests"]) == 30
    assert ours == theirs
    assert 0 < ours["num_trained"] < ours["num_tokens"]


def test_the_benchmark_refuses_a_peer_that_made_something_else():
    own = SimpleNamespace(ask=lambda task: {"digests": ["a", "b"], "num_tokens": 2, "num_trained": 1})
    other = SimpleNamespace(ask=lambda task: {"digests": ["a", "x"], "num_tokens": 2, "num_trained": 1})
    with pytest.raises(BenchError, match="row 2: llmkit and trl made different tokens or masks"):
        tokenizing._check(own, {"trl": other})  # type: ignore[arg-type] - stand-ins for processes
