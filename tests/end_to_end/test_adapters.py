"""Adapters in whole runs: resumed to the bit, compared with the right reference, refused before anything loads."""

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from .conftest import Run, read_metrics

RESUMED = {
    "adalora": ["--set", "adapter.every_steps=1", "--set", "adapter.dropout=0.1"],
    "eva": ["--set", "adapter={name: eva, r: 2, rho: 1.0, tau: 0.9, num_batches: 1}"],
    "p_tuning": ["--set", "adapter.num_virtual_tokens=3"],
    "pissa": ["--set", "adapter.r=4"],
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "checkpoints" / "step-4" / "adapter_model.safetensors")


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_is_the_run_that_never_stopped(name: str, sft: list[object], run: Run, tmp_path: Path):
    line = [*sft, "--adapter", name, *RESUMED[name], "--learning-rate", 1e-2, "--threads", 1, "--output-dir", "whole"]
    line += ["--set", "checkpoint.keep_last=4"]
    run(*line)
    whole = tmp_path / "whole"
    expected, losses = weights(whole), [row["loss"] for row in read_metrics(whole) if "loss" in row]
    for step in (3, 4):
        shutil.rmtree(whole / "checkpoints" / f"step-{step}")
    run(*line, "--resume")
    found = weights(whole)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert [row["loss"] for row in read_metrics(whole) if "loss" in row] == losses


@pytest.mark.parametrize("name", ["pissa", "lora", "full", "prompt_tuning"])
def test_preferences_are_measured_from_the_model_that_training_began_with(
    name: str, model: str, pairs: Path, run: Run, tmp_path: Path
):
    # pissa's base without its adapter is not that model: its margin would not be 0 at the first step.
    data = ["--dataset", "files", "--dataset-path", pairs, "--rows-per-step", 4, "--max-steps", 1, "--threads", 1]
    settings = ["--set", "adapter.num_virtual_tokens=2"] if name == "prompt_tuning" else []
    run("train", "dpo", "--model", model, *data, "--adapter", name, *settings, "--output-dir", "run")
    margin = read_metrics(tmp_path / "run")[0]["rewards_margin"]
    assert (abs(margin) < 1e-5) == (name != "prompt_tuning")


def test_a_wrong_module_is_told_before_a_run_directory_is_filled(sft: list[object], run: Run):
    ended = run(*sft, "--adapter", "loha", "--set", "adapter.target_modules=[q_prj]", code=2)
    assert "Did you mean 'q_proj'?" in ended.error


def test_a_dry_run_refuses_the_same(grpo: list[object], run: Run):
    ended = run(*grpo, "--adapter", "prompt_tuning", "--dry-run", code=2)
    assert "engines that sample answers cannot use this adapter" in ended.error


def test_a_dry_run_counts_what_an_adapter_trains(sft: list[object], run: Run):
    # IA3 on k_proj and v_proj (16 outputs each) and down_proj (64 inputs), in two layers.
    ended = run(*sft, "--adapter", "ia3", "--dry-run", "--json")
    assert '"trainable_parameters": 192' in ended.out


def test_another_name_leaves_a_notice(sft: list[object], run: Run, caplog: pytest.LogCaptureFixture):
    run(*sft, "--adapter", "bone", "--set", "adapter.r=4")
    assert "adapter.name=bone is another name of 'miss'" in caplog.text


def test_grpo_learns_with_an_adapter_that_is_no_lora(grpo: list[object], run: Run, tmp_path: Path):
    run(*grpo, "--adapter", "oft", "--set", "adapter.block_size=16", "--output-dir", "run")
    rows = [row for row in read_metrics(tmp_path / "run") if "logprob_mismatch_kl" in row]
    assert all(abs(row["logprob_mismatch_kl"]) < 1e-6 for row in rows)
