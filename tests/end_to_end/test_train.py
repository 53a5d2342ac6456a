"""Whole runs on a small model: they learn, their checkpoints load elsewhere, their figures are the published ones."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit import cli

from .conftest import Run, read_metrics

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k"
LEARNS = ["--learning-rate", "1e-2"]
PEFT_WARNS = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
CLOSENESS = '''
"""Share of some tokens, for models that know nothing."""
from llmkit.config.section import Section
class Config(Section):
    pass
def build(config):
    return lambda rollout: sum(token % 7 == 3 for token in rollout.token_ids) / 100
'''
EVERY_STEP = {"step", "time_seconds", "loss", "learning_rate", "grad_norm", "num_tokens", "tokens_per_second",
              "peak_memory_bytes"}  # fmt: skip
EVERY_RL_STEP = EVERY_STEP | {
    "reward_mean", "reward_std", "completion_length_mean", "truncated_fraction", "entropy", "ratio_clipped_fraction",
    "staleness_max", "generation_seconds", "scoring_seconds", "training_seconds", "sync_seconds",
    "logprob_mismatch_kl", "logprob_mismatch_k1", "logprob_mismatch_ratio_p01", "logprob_mismatch_ratio_p50",
    "logprob_mismatch_ratio_p99", "logprob_mismatch_ratio_max", "logprob_mismatch_abs_p_mean",
    "logprob_mismatch_abs_p_max",
}  # fmt: skip


def finish(*arguments: object) -> None:
    """Run a command line in this process to its successful end."""
    assert cli.run([str(argument) for argument in arguments]) == 0


def settings(algorithm: str, model: str, data: Path | None, steps: int) -> list[object]:
    """A command line for a few steps."""
    common = ["train", algorithm, "--model", model, "--max-steps", steps, "--set", "optim.schedule=constant"]
    if algorithm == "grpo":
        problems = ["--set", "dataset={name: arithmetic, size: 50, max_steps: 1}", "--reward", "closeness"]
        rollouts = ["--prompts-per-step", 3, "--group-size", 4, "--max-new-tokens", 8, "--max-length", 320]
        return [*common, *problems, *rollouts]
    return [*common, "--dataset", "files", "--dataset-path", data, "--rows-per-step", 8]


@pytest.fixture
def grpo(model: str, fake_package: Callable[..., Path]) -> list[object]:
    """A command line for two steps with a reward that a random model can raise."""
    fake_package("closeness", {"rewards": {"closeness": "closeness"}}, {"closeness.py": CLOSENESS})
    return settings("grpo", model, None, 2)


def series(run: Path, name: str) -> list[float]:
    return [row[name] for row in read_metrics(run) if name in row]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Sequence:
    """A conversation as plain transformers has it: ids, and which of them are the answer, its end of turn included."""

    def __init__(self, tokenizer: Any, prompt: str, answer: str) -> None:
        turns = [{"role": "user", "content": prompt}]
        before = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(before + answer + "<|im_end|>" + "\n").input_ids
        first = len(tokenizer(before).input_ids)
        self.input_ids = torch.tensor([ids])
        self.labels = torch.tensor([[-100] * first + ids[first:-1] + [-100]])

    def logprob(self, model: Any) -> torch.Tensor:
        """Log-probability of the answer, nats."""
        logits = model(self.input_ids).logits[0, :-1]
        return -F.cross_entropy(logits, self.labels[0, 1:], ignore_index=-100, reduction="sum")


@pytest.fixture(scope="session")
def full(model: str, chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained every weight for ten steps, measured before and after."""
    out = tmp_path_factory.mktemp("sft") / "run"
    held_out = ["--set", f"eval_dataset={{name: files, path: {chats}}}"]
    finish(*settings("sft", model, chats, 10), *LEARNS, *held_out, "--output-dir", out)
    return out


class TestSFT:
    def test_the_loss_goes_down(self, full: Path):
        before, after = series(full, "eval_loss")
        assert before == pytest.approx(math.log(259), rel=0.05)  # a random model knows nothing of 259 tokens
        assert after < 0.8 * before
        assert series(full, "loss")[-1] < series(full, "loss")[0]

    def test_metrics_have_every_key(self, full: Path):
        for row in read_metrics(full)[1:]:
            assert row.keys() >= EVERY_STEP
        assert series(full, "step") == list(range(11))

    def test_the_directory_holds_everything(self, full: Path):
        assert {"config.yaml", "environment.json", "metrics.jsonl", "checkpoints", "report.html", "loss.png"} <= {
            path.name for path in full.iterdir()
        }

    def test_the_checkpoint_is_the_trained_policy_in_plain_transformers(self, full: Path, chats: Path):
        directory = full / "checkpoints" / "step-10"
        trained = AutoModelForCausalLM.from_pretrained(directory).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory)
        assert tokenizer.chat_template
        sequences = [Sequence(tokenizer, *question_and_answer(row)) for row in rows_of(chats)]
        count = sum(int((sequence.labels != -100).sum()) for sequence in sequences)
        with torch.no_grad():
            loss = -sum(sequence.logprob(trained).item() for sequence in sequences) / count
        assert loss == pytest.approx(series(full, "eval_loss")[1], abs=1e-5)

    def test_the_first_loss_is_that_of_transformers(self, model: str, chats: Path, tmp_path: Path):
        rows = rows_of(chats)[:6]
        (tmp_path / "six.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        finish(
            *settings("sft", model, tmp_path / "six.jsonl", 1), "--rows-per-step", 6, "--output-dir", tmp_path / "run"
        )
        plain = AutoModelForCausalLM.from_pretrained(model).eval()
        tokenizer = AutoTokenizer.from_pretrained(model)
        sequences = [Sequence(tokenizer, *question_and_answer(row)) for row in rows]
        counts = [int((sequence.labels != -100).sum()) for sequence in sequences]
        with torch.no_grad():
            losses = [plain(sequence.input_ids, labels=sequence.labels).loss.item() for sequence in sequences]
        mean = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
        assert series(tmp_path / "run", "loss") == [pytest.approx(mean, abs=1e-5)]
        assert series(tmp_path / "run", "num_trained_tokens") == [sum(counts)]

    @PEFT_WARNS
    def test_an_adapter_loads_in_plain_peft_and_the_base_stays(self, model: str, chats: Path, tmp_path: Path):
        held_out = ["--set", f"eval_dataset={{name: files, path: {chats}}}"]
        out = tmp_path / "run"
        finish(*settings("sft", model, chats, 6), *LEARNS, "--adapter", "lora", *held_out, "--output-dir", out)
        before, after = series(out, "eval_loss")
        assert after < before
        base = AutoModelForCausalLM.from_pretrained(model).eval()
        trained = peft.PeftModel.from_pretrained(base, out / "checkpoints" / "step-6").eval()
        tokenizer = AutoTokenizer.from_pretrained(out / "checkpoints" / "step-6")
        sequences = [Sequence(tokenizer, *question_and_answer(row)) for row in rows_of(chats)]
        count = sum(int((sequence.labels != -100).sum()) for sequence in sequences)
        with torch.no_grad():
            assert -sum(s.logprob(trained).item() for s in sequences) / count == pytest.approx(after, abs=1e-5)
            with trained.disable_adapter():
                assert -sum(s.logprob(trained).item() for s in sequences) / count == pytest.approx(before, abs=1e-5)


def question_and_answer(row: dict[str, Any]) -> tuple[str, str]:
    question, answer = (message["content"] for message in row["messages"])
    return question, answer


class TestDPO:
    @pytest.mark.parametrize("adapter", ["full", "lora"])
    def test_the_margin_grows_from_zero(self, adapter: str, model: str, pairs: Path, tmp_path: Path):
        finish(*settings("dpo", model, pairs, 6), *LEARNS, "--adapter", adapter, "--output-dir", tmp_path / "run")
        # Policy and reference are the same at first, so the margin is 0 and the loss ln 2.
        assert series(tmp_path / "run", "loss")[0] == pytest.approx(math.log(2), abs=1e-6)
        margins = series(tmp_path / "run", "rewards_margin")
        assert margins[0] == pytest.approx(0.0, abs=1e-6)
        assert margins[-1] > 0.1
        assert series(tmp_path / "run", "rewards_accuracy")[-1] == 1.0

    def test_the_loss_is_that_of_the_equation(self, model: str, pairs: Path, tmp_path: Path):
        out = tmp_path / "run"
        every_pair = ["--rows-per-step", 30, "--checkpoint-every", 1, "--set", "algorithm.beta=0.3"]
        finish(*settings("dpo", model, pairs, 2), "--learning-rate", "1e-3", *every_pair, "--output-dir", out)
        tokenizer = AutoTokenizer.from_pretrained(model)
        reference = AutoModelForCausalLM.from_pretrained(model).eval()
        policy = AutoModelForCausalLM.from_pretrained(out / "checkpoints" / "step-1").eval()
        losses, margins = [], []
        with torch.no_grad():
            for row in rows_of(pairs):
                sides = [Sequence(tokenizer, row["prompt"], row[side]) for side in ("chosen", "rejected")]
                chosen, rejected = (0.3 * (s.logprob(policy) - s.logprob(reference)) for s in sides)
                margins.append((chosen - rejected).item())
                losses.append(-F.logsigmoid(chosen - rejected).item())
        assert series(out, "rewards_margin")[1] == pytest.approx(sum(margins) / len(margins), abs=1e-5)
        assert series(out, "loss")[1] == pytest.approx(sum(losses) / len(losses), abs=1e-5)


class TestGRPO:
    @pytest.mark.skipif(not GSM8K.is_dir(), reason="the GSM8K files are not here")
    def test_the_preset_runs_on_the_real_problems(self, model: str, tmp_path: Path):
        small = [
            "--set", f"model.path={model}", "--set", f"dataset.path={GSM8K}", "--set", "data.overlength=drop",
            "--set", "data.max_length=512", "--max-new-tokens", 8, "--prompts-per-step", 2, "--group-size", 2,
            "--set", "eval.max_rows=2", "--set", "device.compute_dtype=float32", "--max-steps", 2,
        ]  # fmt: skip
        finish("train", "grpo", "--preset", "gsm8k", *small, "--output-dir", tmp_path / "run")
        before, *steps = read_metrics(tmp_path / "run")
        assert before["step"] == 0
        assert [row["step"] for row in steps] == [1, 2]
        for row in steps:
            assert row.keys() >= EVERY_RL_STEP
            assert row["truncated_fraction"] > 0
        for row in (before, steps[-1]):
            assert {"eval_reward_mean", "eval_accuracy"} <= row.keys()
        rollouts = rows_of(tmp_path / "run" / "rollouts" / "step-00001.jsonl")
        assert len(rollouts) == 4
        assert all(rollout["source"].startswith(f"{GSM8K}/train.jsonl:") for rollout in rollouts)

    def test_on_policy_ratios_are_one_and_the_engine_agrees(self, grpo: list[object], tmp_path: Path):
        finish(*grpo, *LEARNS, "--output-dir", tmp_path / "run")
        for row in read_metrics(tmp_path / "run"):
            assert row["ratio_clipped_fraction"] == 0
            assert row["staleness_max"] == 0
            assert abs(row["logprob_mismatch_kl"]) < 1e-6
            assert row["num_trained_tokens"] > 0
            assert row["grad_norm"] > 0

    def test_without_learning_the_engine_agrees_to_rounding_at_every_step(self, grpo: list[object], tmp_path: Path):
        stops = ["--set", "algorithm.mismatch={max_kl: 1e-6, max_abs_p: 1e-4, on_alarm: stop}"]
        finish(*grpo, *stops, "--learning-rate", 0, "--group-size", 4, "--output-dir", tmp_path / "run")
        for row in read_metrics(tmp_path / "run"):
            for name in ("p01", "p50", "p99", "max"):
                assert row[f"logprob_mismatch_ratio_{name}"] == pytest.approx(1.0, abs=1e-4)
            assert row["logprob_mismatch_abs_p_max"] < 1e-5

    def test_an_engine_of_another_mind_rings_the_alarm_and_can_be_corrected(
        self, grpo: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        # The scripted engine says that every token was certain.
        scripted = ["--engine", "echo", "--set", "engine.script=[[5, 6, 7], [8, 9]]", "--max-steps", 1]
        finish(*grpo, *scripted, "--output-dir", tmp_path / "run")
        warned = capsys.readouterr().err
        assert "warning: step 1: the trainer and engine 'echo' disagree about the sampled tokens" in warned
        assert "algorithm.correction.action=truncate" in warned
        corrected = ["--set", "algorithm.correction.action=truncate", "--output-dir", tmp_path / "corrected"]
        finish(*grpo, *scripted, *corrected)
        (row,) = read_metrics(tmp_path / "corrected")
        assert row["importance_weight_mean"] < 0.1
        assert row["logprob_mismatch_ratio_max"] < 1
        stopped = ["--set", "algorithm.mismatch.on_alarm=stop", "--output-dir", tmp_path / "stopped"]
        assert cli.run([str(argument) for argument in (*grpo, *scripted, *stopped)]) == 1
        assert read_metrics(tmp_path / "stopped") == []

    def test_a_kl_penalty_starts_at_zero_and_is_measured(self, grpo: list[object], tmp_path: Path):
        finish(*grpo, *LEARNS, "--kl-coef", 0.1, "--output-dir", tmp_path / "run")
        first, second = series(tmp_path / "run", "kl")
        assert first == pytest.approx(0.0, abs=1e-9)
        assert second > 1e-6

    def test_several_updates_on_one_batch_leave_the_policy_that_sampled(self, grpo: list[object], tmp_path: Path):
        several = ["--set", "algorithm.updates_per_step=3", "--set", "algorithm.clip_high=1e-4"]
        finish(*grpo, *LEARNS, *several, "--set", "algorithm.clip_low=1e-4", "--output-dir", tmp_path / "run")
        assert all(fraction > 0 for fraction in series(tmp_path / "run", "ratio_clipped_fraction"))
        state = tmp_path / "run" / "checkpoints" / "step-2" / "trainer" / "optimizer.json"
        assert json.loads(state.read_text())["state"]["num_updates"] == 6

    def test_the_reward_goes_up(self, grpo: list[object], tmp_path: Path):
        more = ["--max-steps", 12, "--group-size", 8, "--max-new-tokens", 16]
        finish(*grpo, *LEARNS, *more, "--output-dir", tmp_path / "run")
        rewards = series(tmp_path / "run", "reward_mean")
        assert sum(rewards[-3:]) > sum(rewards[:3])


@pytest.mark.parametrize(
    ("algorithm", "average"),
    [("sft", "token"), ("sft", "sequence"), ("dpo", None), ("grpo", "token"), ("grpo", "sequence")],
)
def test_micro_batches_change_no_figure(
    algorithm: str, average: str | None, grpo: list[object], model: str, chats: Path, pairs: Path, tmp_path: Path
):
    command = grpo if algorithm == "grpo" else settings(algorithm, model, pairs if algorithm == "dpo" else chats, 2)
    if average is not None:
        command = [*command, "--set", f"algorithm.average={average}"]
    for tokens in (1, 300, 8192):
        budget = ["--set", f"batch.tokens_per_micro_batch={tokens}"]
        finish(*command, "--learning-rate", "1e-3", *budget, "--output-dir", tmp_path / str(tokens))
    one, few, all_ = (read_metrics(tmp_path / name) for name in ("1", "300", "8192"))
    for rows in zip(one, few, all_, strict=True):
        for name, value in rows[0].items():
            if not name.endswith(("_seconds", "_per_second", "_bytes")):
                assert [row[name] for row in rows[1:]] == [pytest.approx(value, rel=1e-4, abs=1e-5)] * 2, name


class TestDryRun:
    @pytest.mark.parametrize("algorithm", ["sft", "dpo", "grpo"])
    def test_tells_everything_and_writes_nothing(
        self, algorithm: str, run: Run, grpo: list[object], model: str, chats: Path, pairs: Path, tmp_path: Path
    ):
        command = grpo if algorithm == "grpo" else settings(algorithm, model, pairs if algorithm == "dpo" else chats, 2)
        before = sorted(tmp_path.rglob("*"))
        ended = run(*command, "--dry-run", "--json")
        figures = json.loads(ended.out)
        plain = AutoModelForCausalLM.from_pretrained(model)
        assert figures["dry_run"] is True
        assert figures["parameters"] == figures["trainable_parameters"] == plain.num_parameters()
        assert figures["num_steps"] == 2
        assert figures["total_bytes"] > 4 * 4 * plain.num_parameters()
        assert "Dry run: nothing was trained" in ended.err
        assert ("«" in ended.err) == (algorithm != "grpo")  # only demonstrations have trained tokens to show
        assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in str(path)] == before

    def test_marks_the_answer_and_its_end(self, run: Run, model: str, chats: Path):
        err = run(*settings("sft", model, chats, 2), "--dry-run", "--set", "data.shuffle=false").err
        assert "<|im_start|>user\nSay ba.<|im_end|>\n<|im_start|>assistant\n«ba<|im_end|>»\n" in err

    @PEFT_WARNS
    def test_counts_what_an_adapter_trains(self, run: Run, model: str, chats: Path):
        lora = ["--adapter", "lora", "--set", "adapter.r=2"]
        figures = json.loads(run(*settings("sft", model, chats, 2), *lora, "--dry-run", "--json").out)
        base = AutoModelForCausalLM.from_pretrained(model)
        trained = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules="all-linear"))
        assert figures["trainable_parameters"] == trained.get_nb_trainable_parameters()[0]


class TestSummary:
    def test_json_is_the_only_thing_on_standard_output(self, run: Run, model: str, chats: Path, tmp_path: Path):
        out = tmp_path / "run"
        ended = run(*settings("sft", model, chats, 2), "--json", "--output-dir", out)
        summary = json.loads(ended.out)
        assert summary["run_directory"] == str(out)
        assert summary["num_steps"] == 2
        for name in ("checkpoint", "report", "loss"):
            assert Path(summary[name]).exists(), name

    def test_without_json_standard_output_is_empty(self, run: Run, model: str, chats: Path, tmp_path: Path):
        ended = run(*settings("sft", model, chats, 2))
        assert ended.out == ""
        assert "Before and after" in ended.err
        # Without --output-dir a run makes a directory of its own under runs/.
        (directory,) = (tmp_path / "runs").iterdir()
        assert directory.name.startswith("sft-")


def test_tensorboard_gets_the_metrics(run: Run, model: str, chats: Path, tmp_path: Path):
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    run(*settings("sft", model, chats, 2), "--tracker", "tensorboard", "--output-dir", out)
    (events,) = (out / "tensorboard").rglob("events.out.tfevents.*")
    assert b"loss" in events.read_bytes()
