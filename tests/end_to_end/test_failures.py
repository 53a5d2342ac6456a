"""Runs that cannot go on: exit code 1 or 2, one message with the way out, and everything that was finished is there."""

import errno
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Command, Run, read_metrics

MOODY = '''
"""Does not like what the weights of version 2 say, until it is mended."""
from pathlib import Path
from llmkit.config.section import Section
class Config(Section):
    flag: str
def build(config):
    def moody(rollout):
        if max(rollout.versions) == 2 and not Path(config.flag).exists():
            raise KeyError("mood")
        return sum(token % 7 == 3 for token in rollout.token_ids) / 100
    return moody
'''


class TestWhileTraining:
    def test_a_reward_that_raises_costs_no_finished_step(
        self, run: Run, grpo: list, tmp_path: Path, fake_package: Callable[..., Path]
    ):
        fake_package("moody", {"rewards": {"moody": "moody"}}, {"moody.py": MOODY})
        out, flag = tmp_path / "run", tmp_path / "mended"
        settings = [*grpo, "--reward", "moody", "--set", f"reward.flag={flag}"]
        ended = run(*settings, "--output-dir", out, code=1)
        assert ended.error.startswith("arithmetic[train]:")
        assert ": the reward 'moody' raised KeyError: 'mood', for the completion " in ended.error
        assert f"{out}: saved after step 2; mend the cause and use --resume" in ended.err
        assert [row["step"] for row in read_metrics(out)] == [1, 2]
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-2"]
        flag.touch()
        run("train", "grpo", "--resume", "--output-dir", out)
        assert [row["step"] for row in read_metrics(out)] == [1, 2, 3, 4]
        # The same as a run in which nothing went wrong.
        run(*settings, "--output-dir", tmp_path / "whole")
        for mine, whole in zip(read_metrics(out), read_metrics(tmp_path / "whole"), strict=True):
            for name in ("loss", "grad_norm", "reward_mean", "entropy"):
                assert mine[name] == whole[name]

    def test_a_step_that_fails_half_done_is_not_saved_as_the_one_before(
        self, run: Run, grpo: list, tmp_path: Path, fake_package: Callable[..., Path]
    ):
        # Version 2 is first seen by the evaluation at the end of step 2, when the weights have moved on from step 1.
        fake_package("moody", {"rewards": {"moody": "moody"}}, {"moody.py": MOODY})
        out = tmp_path / "run"
        held_out = ["--set", "eval_dataset={name: arithmetic, split: test, size: 2, max_steps: 1}", "--eval-every", 2]
        ended = run(*grpo, *held_out, "--reward", "moody", "--set", "reward.flag=none", "--output-dir", out, code=1)
        assert "the reward 'moody' raised" in ended.error
        assert f"{out}: step 2 was half done; --resume goes on from the beginning" in ended.err
        assert not (out / "checkpoints").exists()

    @pytest.mark.parametrize("algorithm", ["sft", "grpo"])
    def test_a_loss_that_is_not_finite(
        self, algorithm: str, run: Run, sft: list, grpo: list, tmp_path: Path, fake_package: Callable[..., Path]
    ):
        fake_package("moody", {"rewards": {"moody": "moody"}}, {"moody.py": MOODY})
        flag = tmp_path / "mended"
        flag.touch()
        settings = sft if algorithm == "sft" else [*grpo, "--reward", "moody", "--set", f"reward.flag={flag}"]
        ended = run(*settings, "--learning-rate", "1e30", "--output-dir", tmp_path / "run", code=1)
        assert "at optimizer step 2" in ended.error
        assert "optim.learning_rate" in ended.error
        assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1]
        assert (tmp_path / "run" / "checkpoints" / "step-1" / "llmkit.json").is_file()

    def test_a_full_disk_at_a_checkpoint_leaves_the_former_one(
        self, run: Run, sft: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def full(path: Path) -> None:
            if "step-3" in str(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        out = tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr("llmkit.train.checkpoints.sync", full)
            error = run(*sft, "--output-dir", out, code=1).error
        assert error.startswith(f"{out}/checkpoints/step-3: no space left (")
        assert "go on with --resume" in error
        assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-1", "step-2"]
        assert "after step 2 of 4" in run("train", "sft", "--resume", "--output-dir", out).err
        assert [row["step"] for row in read_metrics(out)] == [1, 2, 3, 4]

    def test_a_file_system_that_fills_up(self, sft: list, llmkit: Command, small_disk: Path):
        out = small_disk / "run"
        many = ["--max-steps", 2000, "--checkpoint-every", 5, "--output-dir", out]
        process = llmkit.start([*sft, *many])
        wait_for(out / "checkpoints" / "step-5", process)
        fill(small_disk / "filler")
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert "no space left" in error
        assert "Traceback" not in err
        (small_disk / "filler").unlink()
        steps = [row["step"] for row in read_metrics(out)]
        llmkit.run("train", "sft", "--resume", "--output-dir", out, "--max-steps", steps[-1] + 2)
        assert [row["step"] for row in read_metrics(out)] == list(range(1, steps[-1] + 3))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs rights that this user has not")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(path: Path) -> None:
    """Write until there is no space left."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(itertools.repeat(bytes(1 << 12)))


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


class TestOutputAndResume:
    @pytest.fixture
    def done(self, run: Run, sft: list, tmp_path: Path) -> Path:
        """A run of four steps that is done."""
        run(*sft, "--output-dir", tmp_path / "done")
        return tmp_path / "done"

    def resume(self, run: Run, done: Path, *changes: object, code: int = 2) -> str:
        return run("train", "sft", "--resume", "--output-dir", done, "--max-steps", 6, *changes, code=code).err

    def test_a_directory_that_holds_another_run(self, run: Run, sft: list, done: Path):
        before = (done / "metrics.jsonl").read_bytes()
        error = run(*sft, "--output-dir", done, code=2).error
        assert error == (
            f"{done}: holds a run of `llmkit train sft` (4 lines of metrics, checkpoint step-4); go on with it with "
            "--resume, or choose another --output-dir"
        )
        assert (done / "metrics.jsonl").read_bytes() == before

    def test_a_directory_that_holds_other_files(self, run: Run, sft: list, tmp_path: Path):
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.tex").write_text("x")
        error = run(*sft, "--output-dir", tmp_path / "thesis", code=2).error
        assert "holds files that are no run of llmkit: chapter.tex" in error

    def test_a_directory_that_cannot_be_made(self, run: Run, sft: list, chats: Path):
        assert "choose a" in run(*sft, "--output-dir", chats / "run", code=2).error

    def test_another_model(self, run: Run, done: Path, model: str, tmp_path: Path):
        shutil.copytree(model, tmp_path / "other")
        err = self.resume(run, done, "--model", tmp_path / "other")
        assert f"error: {done}/checkpoints/step-4: belongs to other settings: model.path was '{model}', is " in err

    def test_another_data_set(self, run: Run, done: Path, chats: Path, tmp_path: Path):
        shutil.copy(chats, tmp_path / "other.jsonl")
        err = self.resume(run, done, "--dataset-path", tmp_path / "other.jsonl")
        assert f"belongs to other settings: dataset.path was '{chats}', is '{tmp_path}/other.jsonl'" in err

    def test_changed_optimizer_settings_are_named_and_used(self, run: Run, done: Path):
        changes = ["--learning-rate", "1e-3", "--set", "optim.schedule=constant"]
        changes += ["--set", "optim.optimizer.betas=[0.5, 0.75]"]
        err = self.resume(run, done, *changes, code=0)
        assert "warning: resuming under changed settings: " in err
        assert "optim.learning_rate was 1e-05, is 0.001" in err
        assert read_metrics(done)[-1]["learning_rate"] == 1e-3
        state = json.loads((done / "checkpoints" / "step-6" / "trainer" / "optimizer.json").read_text())["state"]
        assert [group["betas"] for group in state["optimizer"]["param_groups"]] == [{"__tuple__": [0.5, 0.75]}] * 3

    def test_a_finished_run(self, run: Run, done: Path):
        error = run("train", "sft", "--resume", "--output-dir", done, code=2).error
        assert error == f"{done}/checkpoints/step-4: all 4 steps of this run are done; raise max_steps to go on"

    def test_nothing_there(self, run: Run, tmp_path: Path):
        assert "no run of `llmkit train sft` to resume" in run("train", "sft", "--resume", code=2).error
        error = run("train", "sft", "--resume", "--output-dir", tmp_path / "none", code=2).error
        assert error.startswith(f"{tmp_path}/none: does not exist; give --resume the --output-dir of a run")

    def test_another_commands_run(self, run: Run, done: Path):
        error = run("train", "dpo", "--resume", "--output-dir", done, code=2).error
        assert error.startswith(f"{done}: holds a run of `llmkit train sft`, not of `llmkit train dpo`")

    def test_a_torn_checkpoint_is_named_and_the_former_one_used(self, run: Run, done: Path):
        os.truncate(done / "checkpoints" / "step-4" / "model.safetensors", 100)
        err = self.resume(run, done, code=0)
        assert f"warning: {done}/checkpoints/step-4: model.safetensors has 100 bytes" in err
        assert "after step 3 of 6" in err
        assert [row["step"] for row in read_metrics(done)] == [1, 2, 3, 4, 5, 6]
