"""Streams, mixtures, packing, splits and faulty rows in whole training runs."""

import json
from pathlib import Path

import pytest

from .conftest import Run, read_metrics
from .test_resume import comparable

MIXTURE = """
dataset:
  name: mixture
  strategy: interleave
  weights_by: {by}
  stopping: all_exhausted
  streaming: {streaming}
  sources:
    - dataset: {{name: files, path: {chats}}}
      weight: 3
    - dataset: {{name: files, path: {instructions}}}
      formatter: {{name: alpaca}}
      weight: 1
"""


@pytest.fixture(scope="session")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows in the Alpaca format."""
    path = tmp_path_factory.mktemp("data") / "instructions.json"
    rows = [{"instruction": "Repeat.", "input": "la " * index, "output": "la " * index} for index in range(1, 13)]
    path.write_text(json.dumps(rows))
    return path


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run) if "loss" in row]


def train(run: Run, arguments: list, directory: Path, *more: object) -> Path:
    """Train to the end; returns the run directory."""
    run(*arguments, "--output-dir", directory, *more)
    return directory


class TestTheSameSamples:
    """Ways to read the same rows that must not change what is trained."""

    def test_a_stream_in_order_trains_as_the_data_set_in_order_does(self, run: Run, sft: list, tmp_path: Path):
        ordered = [*sft, "--set", "data.shuffle=false"]
        whole = train(run, ordered, tmp_path / "whole")
        stream = train(run, ordered, tmp_path / "stream", "--set", "dataset.streaming=true")
        assert losses(stream) == losses(whole)

    def test_worker_processes_change_nothing(self, run: Run, sft: list, tmp_path: Path):
        alone = train(run, sft, tmp_path / "alone", "--set", "dataset.streaming=true")
        workers = train(
            run, sft, tmp_path / "workers", "--set", "dataset.streaming=true", "--set", "data.num_workers=2"
        )
        assert losses(workers) == losses(alone)

    def test_the_cache_changes_nothing(self, run: Run, sft: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
        first = train(run, sft, tmp_path / "first")
        second = train(run, sft, tmp_path / "second")
        without = train(run, sft, tmp_path / "without", "--set", "data.cache=false")
        assert losses(first) == losses(second) == losses(without)
        assert list((tmp_path / "cache" / "data").iterdir())


class TestPacking:
    def test_bins_hold_more_rows_than_single_rows_do(self, run: Run, sft: list, tmp_path: Path):
        single = train(run, sft, tmp_path / "single")
        packed = train(
            run, sft, tmp_path / "packed", "--set", "batch.packing=best_fit", "--set", "batch.pack_length=200"
        )
        assert read_metrics(packed)[-1]["num_tokens"] > 2 * read_metrics(single)[-1]["num_tokens"]

    def test_a_step_stays_within_its_tokens(self, run: Run, sft: list, tmp_path: Path):
        budget = train(run, sft, tmp_path / "budget", "--set", "batch.tokens_per_step=150")
        counts = [row["num_tokens"] for row in read_metrics(budget) if "num_tokens" in row]
        assert all(count <= 150 for count in counts)
        assert max(counts) > 75


class TestHeldOutRows:
    def test_a_share_of_the_rows_is_measured_and_not_trained(self, run: Run, sft: list, tmp_path: Path):
        directory = train(run, sft, tmp_path / "run", "--set", "data.validation_fraction=0.25")
        assert "eval_loss" in read_metrics(directory)[-1]


class TestFaultyRows:
    @pytest.fixture
    def faulty(self, chats: Path, tmp_path: Path) -> Path:
        lines = chats.read_text().splitlines()
        lines[3] = '{"messages": [{"role": "wizard", "content": "x"}]}'
        lines[7] = "{torn"
        path = tmp_path / "faulty.jsonl"
        path.write_text("\n".join(lines) + "\n")
        return path

    def test_stop_the_run_with_their_place_and_the_way_out(self, run: Run, sft: list, faulty: Path, tmp_path: Path):
        error = run(*sft, "--dataset-path", faulty, "--output-dir", tmp_path / "run", code=2).error
        assert f"{faulty}:4" in error
        assert "wizard" in error
        assert "data.on_error=skip" in error

    @pytest.mark.parametrize("streaming", ["true", "false"])
    def test_are_counted_and_written_down_when_they_may_be_skipped(
        self, streaming: str, run: Run, sft: list, faulty: Path, tmp_path: Path
    ):
        more = ["--dataset-path", faulty, "--set", f"dataset.streaming={streaming}", "--set", "data.on_error=skip"]
        # Two steps of 19 rows are one pass over the 38 rows that can be used.
        directory = train(run, sft, tmp_path / "run", *more, "--rows-per-step", 19, "--max-steps", 2)
        report = [json.loads(line)["error"] for line in (directory / "skipped_rows.jsonl").read_text().splitlines()]
        assert sorted(fault.split(": ")[0] for fault in report) == [f"{faulty}:4", f"{faulty}:8:2"]
        assert read_metrics(directory)[-1]["num_rows_skipped"] == 2

    def test_more_of_them_than_allowed_stop_the_run(self, run: Run, sft: list, faulty: Path, tmp_path: Path):
        more = ["--dataset-path", faulty, "--set", "data.on_error=skip", "--set", "data.max_skipped=1"]
        error = run(*sft, *more, "--output-dir", tmp_path / "run", code=2).error
        assert "2 faulty rows, more than data.max_skipped=1" in error


class TestMixtures:
    @pytest.mark.parametrize("by", ["rows", "tokens"])
    @pytest.mark.parametrize("streaming", ["true", "false"])
    def test_train_and_resume_in_the_middle_to_the_bit(
        self, by: str, streaming: str, run: Run, sft: list, chats: Path, instructions: Path, tmp_path: Path
    ):
        config = tmp_path / "mixture.yaml"
        config.write_text(MIXTURE.format(by=by, streaming=streaming, chats=chats, instructions=instructions))
        arguments = [*sft[: sft.index("--dataset")], *sft[sft.index("--max-steps") :], "--config", config]
        arguments += ["--set", "optim.schedule=constant"]
        whole = train(run, arguments, tmp_path / "whole", "--max-steps", 12)
        train(run, arguments, tmp_path / "parts", "--max-steps", 5)
        parts = train(run, arguments, tmp_path / "parts", "--max-steps", 12, "--resume")
        assert comparable(parts)[-1]["loss"] == comparable(whole)[-1]["loss"]
        assert losses(parts)[5:] == losses(whole)[5:]


class TestStreams:
    def test_need_a_number_of_steps(self, run: Run, model: str, chats: Path, tmp_path: Path):
        arguments = ["train", "sft", "--model", model, "--dataset", "files", "--dataset-path", chats]
        done = run(*arguments, "--set", "dataset.streaming=true", "--output-dir", tmp_path / "run", code=2)
        assert "max_steps must be set for a stream" in done.error

    def test_give_prompts_to_reinforcement_learning_too(self, run: Run, grpo: list, tmp_path: Path):
        problems = tmp_path / "problems.jsonl"
        rows = [{"question": f"What is {n} and 1?", "answer": f"#### {n + 1}"} for n in range(30)]
        problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
        stream = ["--set", f"dataset={{name: files, path: {problems}, streaming: true}}"]
        directory = train(run, [*grpo, *stream], tmp_path / "run")
        assert len(read_metrics(directory)) == 4


class TestPretokenizedRows:
    def test_train_from_windows_of_a_token_file(self, run: Run, model: str, tmp_path: Path):
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_text("".join(json.dumps({"input_ids": [5 + n % 40] * (10 + n)}) + "\n" for n in range(20)))
        arguments = ["train", "sft", "--model", model, "--set", f"dataset={{name: tokens, path: {corpus}, window: 32}}"]
        directory = train(run, [*arguments, "--max-steps", 3, "--rows-per-step", 2], tmp_path / "run")
        # 2 rows of 32 tokens; the first token of each is predicted from nothing.
        assert {(row["num_tokens"], row["num_trained_tokens"]) for row in read_metrics(directory)} == {(64, 62)}
