"""Reinforcement learning of several turns, with rewards in child processes, from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmkit import cli

REWARD = '''
import os

def score(rollout):
    """Vowels, which a random model can learn to prefer."""
    text = rollout.completion
    if len(text) % 7 == 3:
        os._exit(9)
    return sum(letter in "aeiou" for letter in text) / max(1, len(text))

def never(rollout):
    return 0.0

def shrug(text: str = "") -> str:
    return "?"
'''


TEMPLATE = (
    "{% if tools %}You have <tool_call> for {{ tools[0].function.name }}.\n{% endif %}{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}{% for call in message.tool_calls or [] %}"
    "<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""One with tools and few words: the model's context is small."""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "my_code.py"
    path.write_text(REWARD)
    return path


def train(run: Path, model: str, *settings: object) -> None:
    """Two steps on sums."""
    line = ["train", "grpo", "--model", model, "--max-steps", 2, "--prompts-per-step", 2, "--group-size", 4]
    line += ["--max-length", 500, "--set", "dataset={name: arithmetic, size: 20, max_steps: 1}", "--output-dir", run]
    assert cli.run([str(word) for word in [*line, *settings]]) == 0


def rollouts_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(run.glob("rollouts/step-*")) for line in path.read_text().splitlines()]


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_reward_of_ones_own_that_crashes_costs_only_its_rollouts(tmp_path: Path, model: str, code: Path):
    run = tmp_path / "run"
    train(run, model, "--max-new-tokens", 8, "--set", f"reward={{name: function, function: '{code}:score'}}",
          "--set", "scoring.max_error_fraction=0.95")  # fmt: skip
    rollouts = rollouts_of(run)
    assert len(rollouts) == 16
    crashed = [one for one in rollouts if one["reward"] is None]
    assert all("ended its process with exit code 9" in one["reward_error"] for one in crashed)
    for step, metrics in enumerate(metrics_of(run)):
        lost = [one for one in rollouts[8 * step : 8 * step + 8] if one["reward"] is None]
        assert metrics["reward_error_fraction"] == len(lost) / 8
    assert all(one["rewards"] == {"function": one["reward"]} for one in rollouts if one not in crashed)


def test_several_tries(tmp_path: Path, model: str, code: Path):
    run = tmp_path / "run"
    verifier = f"{{name: function, function: '{code}:never'}}"
    workflow = f"{{name: multi_turn, max_turns: 3, max_turn_tokens: 6, verifier: {verifier}}}"
    reward = "{name: sum, rewards: [{reward: gsm8k}, {reward: {name: length, target_tokens: 9}, weight: 0.5}]}"
    train(run, model, "--max-new-tokens", 200, "--set", f"workflow={workflow}", "--set", f"reward={reward}")
    rollouts = rollouts_of(run)
    assert all(set(one["rewards"]) == {"gsm8k", "length"} for one in rollouts)
    metrics = metrics_of(run)
    assert all({"reward_gsm8k_mean", "reward_length_mean"} <= step.keys() for step in metrics)
    assert all(abs(step["logprob_mismatch_kl"]) < 1e-3 for step in metrics)


def test_tools(tmp_path: Path, model: str, code: Path):
    run, template = tmp_path / "run", tmp_path / "template.jinja"
    template.write_text(TEMPLATE)
    train(
        run, model, "--max-new-tokens", 150, "--set", f"model.chat_template={template}",
        "--set", f"workflow={{name: tools, python: false, functions: ['{code}:shrug'], max_turns: 2}}",
        "--set", "reward={name: length, target_tokens: 4}",
    )  # fmt: skip
    rollouts = rollouts_of(run)
    assert all(one["prompt"].startswith("You have <tool_call> for shrug") for one in rollouts)
    assert all(abs(step["logprob_mismatch_kl"]) < 1e-3 for step in metrics_of(run))


def test_a_template_that_cannot_hold_tools_is_told_before_the_first_step(
    tmp_path: Path, model: str, code: Path, capsys: pytest.CaptureFixture[str]
):
    line = ["train", "grpo", "--model", model, "--max-steps", "1", "--set", "dataset={name: arithmetic, size: 20}"]
    line += ["--set", "workflow=tools", "--output-dir", str(tmp_path / "run")]
    assert cli.run(line) == 2
    assert "no place for them" in " ".join(capsys.readouterr().err.split())
