"""The main job: GRPO teaches the embedded model to work problems out."""

import json
from pathlib import Path

from .conftest import Command, read_metrics


def test_grpo_learns_from_the_embedded_model_and_data(llmkit: Command, tmp_path: Path):
    run = tmp_path / "run"
    out, err = llmkit.run("train", "grpo", "--preset", "gsm8k-tiny", "--output-dir", str(run), "--json", threads=2)
    summary = json.loads(out)
    assert summary["before"]["eval_accuracy"] < 0.5
    assert summary["after"]["eval_accuracy"] > 0.85
    assert err.count("reward 1") + err.count("reward 0") >= 6, "three sample rollouts before and three after"
    assert (run / "report.html").stat().st_size > 10_000
    assert (run / "reward.png").read_bytes().startswith(b"\x89PNG")
    steps = [row["step"] for row in read_metrics(run)]
    assert steps == list(range(summary["num_steps"] + 1))
