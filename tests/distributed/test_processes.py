"""Several processes train what one does: the same losses, gradients and weights."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from llmkit.distributed.launch import worker_environment

from . import cases

SECONDS = 300
TWO = [name for name in cases.CASES if name not in ("sft-hsdp", "sft-fsdp-tensor")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a small random model with heads that divide by two, and a head that is no embedding."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from llmkit.testing.tiny import tiny_codec

    directory = tmp_path_factory.mktemp("model")
    config = Qwen3Config(
        vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=128, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(directory)
    tiny_codec().tokenizer.save_pretrained(directory)
    return str(directory)


def launch(names: Sequence[str], num_processes: int, model: str, out: Path) -> list[dict[str, Any]]:
    """What the cases come to in each of so many processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    read, write = os.pipe()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.distributed.cases", str(out), model, str(port), *names],
            cwd=Path(__file__).parents[2],
            env={**worker_environment(os.environ, rank, num_processes, port, read), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_processes)
    ]
    for process in processes:
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
    os.close(read)
    os.close(write)
    return [torch.load(out / f"rank-{rank}.pt", weights_only=False) for rank in range(num_processes)]


@pytest.fixture(scope="module")
def of_two(model: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return launch(TWO, 2, model, tmp_path_factory.mktemp("two"))


def check(name: str, model: str, ranks: Sequence[dict[str, Any]]) -> None:
    """Every rank has the metrics and the weights of one process."""
    expected = cases.work(name, model, parallel=False)
    for found in (rank[name] for rank in ranks):
        for ours, theirs in zip(found["metrics"], expected["metrics"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-5)
        assert found["held_out"] == pytest.approx(expected["held_out"], abs=1e-5)
        assert found["weights"].keys() == expected["weights"].keys()
        for weight, tensor in expected["weights"].items():
            torch.testing.assert_close(found["weights"][weight], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [name for name in TWO if not name.startswith(("nan", "muon"))])
def test_two_processes_train_what_one_does(name: str, model: str, of_two: list[dict[str, Any]]):
    check(name, model, of_two)


def test_only_the_first_process_keeps_the_weights_that_it_brings_to_servers(of_two: list[dict[str, Any]]):
    first, second = (rank["grpo-fsdp"] for rank in of_two)
    for name, weight in first["weights"].items():
        torch.testing.assert_close(first["brought"][name], weight, atol=0, rtol=0)
    assert all(weight.numel() == 0 for weight in second["brought"].values())


@pytest.mark.slow
def test_four_processes_train_what_one_does(model: str, tmp_path: Path):
    names = ["sft-hsdp", "sft-fsdp-tensor", "sft-ddp", "grpo-ddp", "dpo-fsdp"]
    ranks = launch(names, 4, model, tmp_path)
    for name in names:
        check(name, model, ranks)


def test_the_weights_do_change(model: str, of_two: list[dict[str, Any]]):
    before = cases.work("sft-ddp", model, parallel=False)["metrics"][0]["loss"]
    assert of_two[0]["sft-ddp"]["metrics"][-1]["loss"] != pytest.approx(before, abs=1e-2)


def test_an_optimizer_of_whole_matrices_is_refused(of_two: list[dict[str, Any]]):
    for rank in of_two:
        assert rank["muon-fsdp"]["error"].startswith("optim.optimizer=muon needs whole weights")


def test_a_row_that_is_not_finite_in_one_process_is_named_by_all(of_two: list[dict[str, Any]]):
    for rank in of_two:
        (skipped,) = rank["nan-skip-ddp"]["skipped"]
        assert "the loss is nan at optimizer step 2, in the micro-batch of rows rows.jsonl:2, rows.jsonl:4;" in skipped
        assert "the loss is nan at optimizer step 2" in rank["nan-raise-fsdp"]["error"]
        assert "of rows rows.jsonl:2, rows.jsonl:4; this step has changed" in rank["nan-raise-fsdp"]["error"]
