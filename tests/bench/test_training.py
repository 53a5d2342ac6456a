"""`llmkit bench train`: what it says about steps, and a real but small run of it."""

import json
from typing import Any

import pytest

from llmkit.bench import training
from llmkit.bench.training_cases import CASES, TRL, Case
from llmkit.bench.training_cli import Training
from llmkit.bench.training_material import Shape
from llmkit.bench.training_results import Runs, findings
from llmkit.cli import run
from llmkit.errors import BenchError

TINY = Shape(64, 1, 4096)
CASE = Case("x", "sft", TINY, 8, 8, 2, {}, {"trl": TRL(2)})
TINY_CASES = (
    Case("tiny-dpo", "dpo", TINY, 8, 8, 2, {}, {}),
    Case("tiny-grpo", "grpo", TINY, 16, 8, 4, {}, {}, group_size=2),
    Case("tiny-grpo-update", "grpo", TINY, 16, 8, 4, {}, {}, group_size=2, scripted=True),
)


def steps(seconds: float, *losses: float, **more: float) -> dict[str, Any]:
    taken = [
        {"seconds": seconds, "cpu_seconds": seconds / 2, "loss": loss, "num_tokens": 100.0, **more} for loss in losses
    ]
    return {"steps": taken, "peak_memory_bytes": 1000}


def runs(warm_up: dict[str, Any], counted: dict[str, Any]) -> Runs:
    found = Runs()
    found.take(warm_up, counts=False)
    found.take(counted, counts=True)
    return found


def test_speeds_are_medians_of_the_steps_that_count_against_the_best_of_theirs():
    ours = runs(steps(9.0, 5.0), steps(0.5, 4.0, 3.0))
    slow, fast = runs(steps(1.0, 5.0), steps(2.0, 4.0, 3.0)), runs(steps(1.0, 5.0), steps(1.0, 4.0, 3.0))
    found = findings(CASE, {"llmkit": ours, "trl slow": slow, "trl fast": fast}, {}, 0.1)
    by_name = {one.name: one.metrics for one in found.results}
    assert by_name["train/llmkit"]["tokens_per_second"] == 200
    assert by_name["train/llmkit"]["tokens_per_cpu_second"] == 400
    assert by_name["train/trl slow"]["loss_difference"] == 0
    assert found.ratios["trl"] == {
        "x tokens_per_second": 2.0,
        "x tokens_per_cpu_second": 2.0,
        "x peak_memory_bytes": 1.0,
    }


def test_generating_and_training_are_told_apart():
    given = {"llmkit": runs(steps(9.0, 1.0), steps(5.0, 1.0, generation_seconds=2.0))}
    (one,) = findings(CASE, given, {}, None).results
    assert (one.metrics["generation_seconds"], one.metrics["training_seconds"]) == (2.0, 3.0)


def test_those_that_do_not_train_alike_are_not_compared():
    ours, theirs = runs(steps(1.0, 5.0), steps(1.0, 4.0)), runs(steps(1.0, 5.0), steps(1.0, 4.4))
    with pytest.raises(BenchError, match=r"losses of llmkit and trl differ by 0\.091 in the first 2 steps"):
        findings(CASE, {"llmkit": ours, "trl": theirs}, {}, None)


def test_the_command_offers_every_case():
    assert [one.value for one in Training] == list(CASES)


@pytest.mark.parametrize("case", TINY_CASES, ids=lambda case: case.name)
def test_the_real_command_trains_in_steps(case: Case, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setitem(training.CASES, case.name, case)
    request = training.TrainBench((case.name,), None, repeats=2, steps=1, warmup_steps=2, threads=1, device="cpu")
    document = training.measure(request)
    (result,) = document["results"]
    assert result["settings"]["case"] == case.name
    assert len(result["losses"]) == 4
    assert result["tokens_per_second"] > 0
    assert result["peak_memory_bytes"] > 1 << 20
    assert ("generation_seconds" in result) == (case.algorithm == "grpo")
    assert json.loads(json.dumps(document)) == document
    assert case.name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "everything"], "everything"),
        (["--compare", "trl"], "--compare trl needs --python PATH"),
        (["--threads", "100000"], "--threads 100000"),
        (["--steps", "0"], "--steps"),
    ],
)
def test_bad_input_is_told_of(arguments: list[str], words: str, capsys: Any):
    assert run(["bench", "train", *arguments]) == 2
    assert words in capsys.readouterr().err
