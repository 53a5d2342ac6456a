"""Bad input: exit code 2 or 1, one message with the place and the way out, and nothing lost that was written before."""

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
import torch

from .conftest import Command, Run, read_metrics

CHAT = '{"messages": [{"role": "user", "content": "Say ba."}, {"role": "assistant", "content": "ba"}]}\n'


@pytest.fixture
def sft(model: str, chats: Path) -> list[object]:
    """A command line that trains for four steps and saves each."""
    data = ["--dataset", "files", "--dataset-path", chats]
    return ["train", "sft", "--model", model, *data, "--max-steps", 4, "--rows-per-step", 2, "--checkpoint-every", 1]


@pytest.fixture
def grpo(model: str) -> list[object]:
    """A command line that samples two groups of two, four tokens long, for four steps."""
    problems = ["--set", "dataset={name: arithmetic, size: 20, max_steps: 1}"]
    rollouts = ["--prompts-per-step", 2, "--group-size", 2, "--max-new-tokens", 4, "--max-length", 320]
    return ["train", "grpo", "--model", model, *problems, *rollouts, "--max-steps", 4, "--checkpoint-every", 0]


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--preset", "gsm8k-tinny"], "gsm8k-tiny"),
            (["--set", "optim.learnig_rate=1"], "Did you mean 'learning_rate'?"),
            (["--set", "lr=1"], "optim.learning_rate"),
            (["--set", "optim.learning_rate=fast"], "--set optim.learning_rate=fast: must be a number"),
            (["--learning-rate", "-1"], "--learning-rate: optim.learning_rate: must be greater than 0"),
            (["--set", "optim.betas=0.9"], "--set optim.betas=0.9: must be"),
            (["--device", "gpu"], "'cuda'"),
            (["--dataset", "fils"], "No dataset named 'fils'. Did you mean 'files'?"),
            (["--adapter", "lore"], "Did you mean 'lora'?"),
            (["--tracker", "tensorbord"], "Did you mean 'tensorboard'?"),
            (["--set", "model.path=builtin:tinny"], "Installed: tiny"),
            (["--adapter", "lora", "--set", "adapter.rank=4"], "adapter.rank"),
            (["--adapter", "lora", "--set", "adapter.target_modules=[q]"], "q_proj"),
            (
                ["--set", "model.chat_template=none.jinja"],
                "model.chat_template=none.jinja: cannot be read: No such file",
            ),
        ],
    )
    def test_is_told_with_its_name_and_what_would_do(self, arguments: list[str], message: str, run: Run, sft: list):
        ended = run(*sft, *arguments, code=2)
        assert message in ended.error
        assert ended.out == ""

    def test_a_key_in_a_file_is_told_with_line_and_column(self, run: Run, sft: list, tmp_path: Path):
        (tmp_path / "run.yaml").write_text("optim:\n  learnig_rate: 1e-3\nseed: one\n")
        error = run(*sft, "--config", "run.yaml", code=2).error
        assert "run.yaml:2:3: optim.learnig_rate: unknown key. Did you mean 'learning_rate'?" in error
        assert "run.yaml:3:7: seed:" in error

    def test_an_unknown_option_names_the_nearest(self, run: Run, sft: list):
        assert "--learning-rate" in run(*sft, "--learningrate", "1", code=2).err

    @pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
    def test_a_device_that_is_not_there(self, run: Run, sft: list):
        assert run(*sft, "--device", "cuda", code=2).error.startswith(
            "device.device=cuda: PyTorch finds no such device"
        )

    def test_a_completion_longer_than_everything(self, run: Run, grpo: list):
        error = run(*grpo, "--max-new-tokens", 400, code=2).error
        assert "sampling.max_new_tokens (400) leaves no room for a prompt within data.max_length (320)" in error


class TestData:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.jsonl", b"", "{path}: the file is empty"),
            ("blank.jsonl", b"\n\n", "{path}: no rows"),
            ("binary.jsonl", bytes(range(256)), "{path}: byte 0 is zero, so this is a binary file"),
            ("torn.jsonl", (CHAT * 2 + CHAT[:40]).encode(), "{path}:3:"),
            ("latin.jsonl", (CHAT + CHAT.replace("ba", "bé")).encode("latin1"), "{path}:2:49: byte "),
            ("list.jsonl", b"[1]\n", "{path}:1: a row must be a JSON object, this is a list"),
            ("foreign.jsonl", b'{"foo": 1}\n', "{path}:1: no formatter fits these rows; found foo"),
            ("data.xlsx", b"PK", "a '.xlsx' file is not read"),
            ("empty.parquet", b"", "{path}: the file is empty"),
            ("torn.parquet", b"PAR1 and no more", "{path}: "),
        ],
    )
    def test_a_file_that_cannot_be_used(
        self, name: str, content: bytes, message: str, run: Run, sft: list, tmp_path: Path
    ):
        path = tmp_path / name
        path.write_bytes(content)
        error = run(*sft, "--dataset-path", path, "--output-dir", tmp_path / "run", code=2).error
        assert message.format(path=path) in error
        assert not (tmp_path / "run").exists()

    def test_a_row_that_trains_nothing(self, run: Run, sft: list, tmp_path: Path):
        path = tmp_path / "silent.jsonl"
        path.write_text(CHAT.replace("assistant", "user"))
        error = run(*sft, "--dataset-path", path, "--output-dir", tmp_path / "run", code=2).error
        assert error.startswith(f"{path}:1: no token of this row would be trained: it has no assistant message")
        run(*sft, "--output-dir", tmp_path / "run", "--max-steps", 1)

    def test_a_file_that_is_not_there(self, run: Run, sft: list, tmp_path: Path):
        error = run(*sft, "--dataset-path", tmp_path / "none.jsonl", code=2).error
        assert error == f"{tmp_path}/none.jsonl: no such file or directory"

    def test_no_file_named(self, run: Run, model: str):
        assert "--set dataset.path=VALUE" in run("train", "sft", "--model", model, "--dataset", "files", code=2).error

    def test_a_row_longer_than_the_context(self, run: Run, sft: list, tmp_path: Path):
        (tmp_path / "long.jsonl").write_text(CHAT + CHAT.replace("Say", "Say" * 300))
        settings = [*sft, "--dataset-path", tmp_path / "long.jsonl"]
        ended = run(*settings, "--max-length", 1000, code=2)
        assert "context of 512 tokens is less than data.max_length=1000" in ended.err
        assert ended.error.startswith(f"{tmp_path}/long.jsonl:2: ")
        assert "--set data.overlength=drop" in ended.error
        run(*settings, "--set", "data.overlength=drop", "--max-steps", 1)

    def test_a_prompt_longer_than_the_context(self, run: Run, grpo: list, tmp_path: Path):
        row = {"question": "What is 1 + 1?", "answer": "#### 2"}
        long = {**row, "question": "What " * 120}
        (tmp_path / "long.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(long) + "\n")
        settings = [*grpo, "--set", "data.max_length=1000", "--max-steps", 1]
        data = ["--set", f"dataset={{name: files, path: {tmp_path}/long.jsonl}}"]
        error = run(*settings, *data, code=2).error
        assert error.startswith(f"{tmp_path}/long.jsonl:2: a prompt of ")
        assert "--set data.overlength=drop" in error
        # Held-out prompts keep to the same rule, before anything is trained.
        held_out = ["--set", f"eval_dataset={{name: files, path: {tmp_path}/long.jsonl}}"]
        assert run(*settings, *held_out, code=2).error == error
        ended = run(*settings, *held_out, "--set", "data.overlength=drop")
        assert "warning: 1 of 2 held-out rows are too long and are left out" in ended.err

    def test_pairs_for_sft_and_chats_for_dpo_name_the_other(
        self, run: Run, sft: list, pairs: Path, chats: Path, model: str
    ):
        assert "llmkit train dpo" in run(*sft, "--dataset-path", pairs, code=2).error
        dpo = ["train", "dpo", "--model", model, "--dataset", "files", "--dataset-path", chats]
        assert "no chosen and rejected answers" in run(*dpo, code=2).error

    def test_a_problem_without_a_reference_answer(self, run: Run, grpo: list, tmp_path: Path):
        (tmp_path / "open.jsonl").write_text('{"question": "Why?", "answer": ""}\n')
        data = [
            "--set",
            f"dataset={{name: files, path: {tmp_path}/open.jsonl}}",
            "--set",
            "formatter.name=question_answer",
        ]
        ended = run(*grpo, *data, "--output-dir", tmp_path / "run", code=1)
        assert ended.error.startswith(f"{tmp_path}/open.jsonl:1: no reference answer for the reward 'gsm8k'")


Damage = Callable[[Path], object]
"""Does something to a model directory."""


def without(*names: str) -> Damage:
    return lambda directory: [path.unlink() for name in names for path in directory.glob(name)]


def with_config(**values: object) -> Damage:
    def change(directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text())
        for name in ("layer_types", "max_window_layers"):
            config.pop(name, None)
        (directory / "config.json").write_text(json.dumps({**config, **values}))

    return change


def with_text(name: str, text: str) -> Damage:
    return lambda directory: (directory / name).write_text(text)


def torn(directory: Path) -> None:
    weights = directory / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)


def adapter_alone(directory: Path) -> None:
    without("*")(directory)
    (directory / "adapter_config.json").write_text("{}")


def no_template(directory: Path) -> None:
    without("chat_template*")(directory)
    config = json.loads((directory / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


class TestModel:
    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (without("*token*", "*chat*"), "{path}: no tokenizer (tokenizer.json); copy it"),
            (with_text("tokenizer.json", '{"mod'), "{path}/tokenizer.json: not valid JSON"),
            (without("config.json"), "{path}: no config.json"),
            (with_text("config.json", "[]"), "{path}/config.json: not a JSON object"),
            (with_config(hidden_size="many"), "Field 'hidden_size' expected int"),
            (with_config(model_type="nonesuch"), "`nonesuch`"),
            (without("*.safetensors"), "{path}: no weights (model.safetensors or its shards)"),
            (torn, "{path}/model.safetensors: cannot be read, or was cut off"),
            (with_config(num_hidden_layers=3), "{path}: the checkpoint lacks 11 weights that its config.json asks for"),
            (with_config(hidden_size=64), "{path}: 20 weights have other shapes"),
            (adapter_alone, "{path}: this is an adapter, not a model; give its base model as model.path"),
            (no_template, "{path}: the tokenizer has no chat template"),
        ],
        ids=["tokenizer", "torn tokenizer", "config", "config list", "config type", "architecture", "weights", "torn",
             "keys", "shapes", "adapter", "template"],
    )  # fmt: skip
    def test_a_directory_that_lacks_something(
        self, damage: Damage, message: str, run: Run, sft: list, model: str, tmp_path: Path
    ):
        path = tmp_path / "model"
        shutil.copytree(model, path)
        damage(path)
        ended = run(*sft, "--model", path, "--output-dir", tmp_path / "run", code=2)
        assert message.format(path=path) in ended.error
        assert ended.err.count("\n") <= 2, "one message, and no report of a library beside it"
        # Nothing was trained, so the directory is free for the next try.
        run(*sft, "--output-dir", tmp_path / "run", "--max-steps", 1)

    @pytest.mark.parametrize("path", ["./nowhere", "a/b/c", "/nowhere"])
    def test_a_path_where_nothing_is(self, path: str, run: Run, sft: list):
        assert run(*sft, "--model", path, code=2).error == f"model.path={path}: no such directory"

    def test_a_file_in_place_of_a_directory(self, run: Run, sft: list, chats: Path):
        error = run(*sft, "--model", chats, code=2).error
        assert error == f"model.path={chats}: this is a file; give the directory that holds config.json"

    @pytest.mark.parametrize("setting", ["model.path", "model.tokenizer"])
    def test_a_hub_that_is_not_reached_gives_one_line(
        self, setting: str, sft: list, llmkit: Command, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "*")
        llmkit.environment["HF_HUB_OFFLINE"] = "0"
        _, err = llmkit.run(*sft, "--set", f"{setting}=owner/model", code=2)
        assert err.splitlines() == [
            f"error: {setting}=owner/model: no local directory of that name, and the Hugging Face hub does not give "
            f"its tokenizer (no network, a typo, or no access). To use a local copy: --set {setting}=DIR"
        ]

    def test_the_hubs_data_set_that_is_not_reached_gives_one_line(self, model: str, llmkit: Command):
        _, err = llmkit.run("train", "grpo", "--preset", "gsm8k", "--model", model, code=2)
        (line,) = err.splitlines()
        assert line.startswith("error: dataset.path=openai/gsm8k: no local directory of that name")
        assert line.endswith("To use a local copy: --set dataset.path=DIR")


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
        changes = ["--learning-rate", "1e-3", "--set", "optim.schedule=constant", "--set", "optim.betas=[0.5, 0.75]"]
        err = self.resume(run, done, *changes, code=0)
        assert "warning: resuming under changed settings: " in err
        assert "optim.learning_rate was 1e-05, is 0.001" in err
        assert read_metrics(done)[-1]["learning_rate"] == 1e-3
        state = torch.load(done / "checkpoints" / "step-6" / "trainer" / "optimizer.pt", weights_only=True)
        assert [group["betas"] for group in state["optimizer"]["param_groups"]] == [(0.5, 0.75)] * 2

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
