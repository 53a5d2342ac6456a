"""lm-eval through the server gives what lm-eval gives in process."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.serve.conftest import running

from llmkit.config.schema import ModelConfig
from llmkit.models.loading import checkpoint_path

PYTHON = os.environ.get("LLMKIT_LM_EVAL", "")
ROWS = [{"a": a, "b": b, "sum": str(a + b)} for a in (3, 17, 40, 58) for b in (2, 9, 31)]
CHOICE = """\
task: llmkit_choice
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{a}} + {{b}} ="
doc_to_choice: ["{{sum}}", "{{sum}}1", "none of these"]
doc_to_target: 0
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
GENERATE = """\
task: llmkit_generate
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: generate_until
doc_to_text: "What is {{a}} + {{b}}?"
doc_to_target: "{{sum}}"
generation_kwargs: {until: ["7"], max_gen_toks: 12, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match}]
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="LLMKIT_LM_EVAL names no Python that has lm-eval[api], torch, transformers"),
]


def evaluate(tasks: Path, out: Path, kind: str, /, **options: object) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Scores and answers by task, as lm-eval writes them."""
    arguments = ",".join(f"{name}={value}" for name, value in options.items())
    command = [PYTHON, "-m", "lm_eval", "--model", kind, "--model_args", arguments, "--include_path", str(tasks)]
    command += ["--tasks", "llmkit_choice,llmkit_generate", "--log_samples", "--output_path", str(out)]
    command += ["--device", "cpu", "--batch_size", "1"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none", "HF_HOME": str(out / "home")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = out.rglob("results_*.json")
    samples = {
        task: [json.loads(line) for line in next(out.rglob(f"samples_{task}_*.jsonl")).read_text().splitlines()]
        for task in ("llmkit_choice", "llmkit_generate")
    }
    return json.loads(results.read_text())["results"], samples


def test_scores_are_those_of_the_model_in_process(tmp_path):
    directory = checkpoint_path(ModelConfig(path=os.environ.get("LLMKIT_LM_EVAL_MODEL", "builtin:tiny-untrained")))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    rows = tasks / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, text in (("choice", CHOICE), ("generate", GENERATE)):
        (tasks / f"{name}.yaml").write_text(text.replace("ROWS", str(rows)))
    own, own_samples = evaluate(tasks, tmp_path / "hf", "hf", pretrained=directory, dtype="float32")
    with running(tmp_path, ["--model", directory, "--served-name", "tiny", "--dtype", "float32"]) as server:
        served, samples = evaluate(
            tasks,
            tmp_path / "served",
            "local-completions",
            model="tiny",
            base_url=f"{server.url}/v1/completions",
            tokenizer=directory,
            tokenizer_backend="huggingface",
            num_concurrent=2,
        )
    for task, scores in own.items():
        figures = {name: value for name, value in scores.items() if isinstance(value, float)}
        assert figures
        assert {name: served[task][name] for name in figures} == pytest.approx(figures)
    for one, other in zip(own_samples["llmkit_choice"], samples["llmkit_choice"], strict=True):
        ours, theirs = ([float(answer[0][0]) for answer in sample["resps"]] for sample in (other, one))
        assert ours == pytest.approx(theirs, abs=1e-3)
    answers = [[sample["resps"] for sample in each["llmkit_generate"]] for each in (own_samples, samples)]
    assert answers[0] == answers[1]
