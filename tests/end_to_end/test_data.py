"""`llmkit data` as it is typed: quick help, one document on standard output, and the data of real runs."""

import json
import time
from pathlib import Path

import pytest

from .conftest import Command, Run, read_metrics

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def test_the_document_is_all_that_standard_output_has(llmkit: Command, model: str, chats: Path):
    out, err = llmkit.run("data", "inspect", chats, "--model", model, "--json", "--rows", 2)
    document = json.loads(out)
    assert [row["source"] for row in document["rows"]] == [f"{chats}:1", f"{chats}:2"]
    assert document["figures"]["counts"]["rows"] == 40
    assert "dataset" not in err


def test_workers_of_the_command_give_the_same_document(llmkit: Command, model: str, chats: Path):
    alone, _ = llmkit.run("data", "stats", chats, "--model", model, "--json")
    shared, _ = llmkit.run("data", "stats", chats, "--model", model, "--json", "--num-workers", 2)
    assert json.loads(alone) == json.loads(shared)


def test_help_comes_without_a_wait(llmkit: Command):
    started = time.perf_counter()
    out, _ = llmkit.run("data", "stats", "--help")
    assert "Examples:" in out
    assert time.perf_counter() - started < 2


def test_a_pipe_that_closes_early_is_no_fault(llmkit: Command, model: str, chats: Path):
    process = llmkit.start(["data", "inspect", chats, "--model", model, "--rows", 40])
    assert process.stdout is not None
    process.stdout.read(100)
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.wait(timeout=60)
    process.stderr.close()


def test_what_is_counted_is_what_a_run_trains_on(run: Run, model: str, chats: Path):
    data = ["--dataset", "files", "--set", f"dataset.path={chats}"]
    figures = json.loads(run("data", "stats", chats, "--model", model, "--json").out)["figures"]
    run("train", "sft", "--model", model, *data, "--set", "num_epochs=1", "--rows-per-step", 40, "--output-dir", "out")
    (step,) = [metrics for metrics in read_metrics(Path("out")) if metrics["step"] == 1 and "loss" in metrics]
    assert step["num_tokens"] == figures["counts"]["tokens"]


def test_the_data_of_a_finished_run_by_its_configuration(run: Run, sft: list[object], chats: Path):
    run(*sft, "--output-dir", "out")
    document = json.loads(run("data", "stats", "--config", "out/config.yaml", "--json").out)
    assert (document["for"], document["num_rows"]) == ("train/sft", 40)


def test_pairs_and_prompts(run: Run, model: str, pairs: Path):
    document = json.loads(run("data", "stats", pairs, "--for", "dpo", "--model", model, "--json").out)
    assert set(document["figures"]["roles"]) == {"template", "user", "chosen", "rejected"}
    assert document["figures"]["lengths"]["count"] == 2 * 30
    problems = ["--set", "dataset={name: arithmetic, size: 20}", "--for", "grpo"]
    document = json.loads(run("data", "stats", *problems, "--model", model, "--json").out)
    assert document["figures"]["counts"]["trained_tokens"] == 0
    assert set(document["figures"]["roles"]) == {"template", "user"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_no_row_of_gsm8k_is_lost(run: Run, model: str):
    arguments = [SHARED / "gsm8k", "--set", "dataset.split=test", "--set", "data.overlength=drop"]
    figures = json.loads(run("data", "stats", *arguments, "--model", model, "--json").out)["figures"]
    assert figures["counts"]["rows"] == figures["kept"] + figures["counts"]["dropped"] == 1319
