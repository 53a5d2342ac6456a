"""Bad input: exit code 2 or 1, one message with the place and the way out, and nothing lost that was written before."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from .conftest import Command, Run

CHAT = '{"messages": [{"role": "user", "content": "Say ba."}, {"role": "assistant", "content": "ba"}]}\n'


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--preset", "gsm8k-tinny"], "gsm8k-tiny"),
            (["--set", "optim.learnig_rate=1"], "Did you mean 'learning_rate'?"),
            (["--set", "lr=1"], "optim.learning_rate"),
            (["--set", "optim.learning_rate=fast"], "--set optim.learning_rate=fast: must be a number"),
            (["--learning-rate", "-1"], "--learning-rate: optim.learning_rate: must be at least 0"),
            (["--set", "optim.optimizer.betas=0.9"], "--set optim.optimizer.betas=0.9: must be"),
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
        assert error.startswith("--max-new-tokens: sampling.max_new_tokens (400) leaves no room for a prompt within ")


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
        assert "warning: of 2 held-out rows, 1 dropped as too long" in ended.err

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
        lines = [line for line in ended.err.splitlines() if not line.startswith(("The model's context", "Using 40"))]
        assert len(lines) == 1, "one message, and no report of a library beside it"
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
