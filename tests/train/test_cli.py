import json
import sys
import types

import pytest

from llmkit import cli
from llmkit.config.docs import describe
from llmkit.config.runs import schema_of
from llmkit.errors import CheckpointError, ConfigError
from llmkit.train import cli as train_cli
from llmkit.train import options
from llmkit.train.invocation import Invocation

COMMANDS = ("train/sft", "train/dpo", "train/grpo")
NOTHING = {
    "nproc": None,
    "preset": None,
    "algorithm": None,
    "config": None,
    "overrides": None,
    "resume": False,
    "dry_run": False,
    "as_json": False,
    "profile": False,
    "profile_steps": None,
}


@pytest.fixture
def trained(monkeypatch):
    """What `train` was called with, in place of training."""
    calls = []

    def train(resolved, invocation):
        calls.append((resolved, invocation))
        return {"num_steps": 3}

    for algorithm in ("sft", "dpo", "grpo"):
        module = types.ModuleType(f"llmkit.train.{algorithm}")
        module.train = train  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parameters_of(command: str) -> list[str]:
    return [parameter.name for parameter in cli.import_command("train").commands[command.partition("/")[2]].params]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_sets_a_key_that_the_schema_has(command):
    for parameter in parameters_of(command):
        if parameter in options.PATHS:
            describe(schema_of(command), options.PATHS[parameter])
        else:
            assert parameter in NOTHING


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_spelled_as_error_messages_say(command):
    group = cli.import_command("train")
    for parameter in group.commands[command.partition("/")[2]].params:
        if parameter.name in options.PATHS:
            assert options.flag(parameter.name) in parameter.opts


def test_help_shows_meanings_defaults_plugins_and_examples(capsys):
    assert cli.run(["train", "grpo", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Completions sampled per prompt. [default: 8]" in out
    assert "One of: echo, " in out
    assert "[default: native]" in out
    assert "llmkit train grpo --preset gsm8k-tiny" in out


class TestSettings:
    def test_options_become_settings_of_the_run(self, trained):
        line = "train sft --dataset arithmetic --learning-rate 3e-4 --max-steps 7 --adapter lora --rows-per-step 4"
        assert cli.run([*line.split(), "--eval-every", "2", "--tracker", "jsonl", "--tracker", "console"]) == 0
        run = trained[0][0].run
        assert (run.optim.learning_rate, run.max_steps, run.adapter.name) == (3e-4, 7, "lora")
        assert (run.batch.rows_per_step, run.eval.every_steps) == (4, 2)
        assert [tracker.name for tracker in run.trackers] == ["jsonl", "console"]

    def test_grpo_has_its_own(self, trained):
        line = "train grpo --dataset arithmetic --engine echo --group-size 4 --max-new-tokens 32 --temperature 0.7"
        assert cli.run([*line.split(), "--kl-coef", "0.1"]) == 0
        run = trained[0][0].run
        assert (run.engine.name, run.algorithm.group_size, run.algorithm.kl_coef) == ("echo", 4, 0.1)
        assert (run.sampling.max_new_tokens, run.sampling.temperature) == (32, 0.7)

    def test_what_is_not_given_is_left_to_the_schema(self, trained):
        assert cli.run(["train", "dpo", "--dataset", "arithmetic"]) == 0
        origin = trained[0][0].origin("optim.learning_rate")
        assert origin.layer == "default"

    def test_set_wins_over_an_option_and_an_option_over_a_file(self, trained, tmp_path):
        (tmp_path / "run.yaml").write_text("seed: 1\nmax_steps: 1\ndataset: {name: arithmetic}\n")
        assert cli.run(["train", "sft", "-c", "run.yaml", "--max-steps", "2", "--seed", "2", "--set", "seed=3"]) == 0
        run = trained[0][0].run
        assert (run.max_steps, run.seed) == (2, 3)

    def test_a_bad_value_is_told_with_its_flag(self, trained, capsys):
        assert cli.run(["train", "sft", "--dataset", "arithmetic", "--learning-rate", "-1"]) == 2
        assert "--learning-rate" in capsys.readouterr().err
        assert trained == []

    def test_a_word_for_a_number_is_refused(self, trained, capsys):
        assert cli.run(["train", "sft", "--dataset", "arithmetic", "--max-steps", "many"]) == 2
        assert "--max-steps" in capsys.readouterr().err


class TestInvocation:
    def test_is_named_after_the_preset_or_the_algorithm(self, trained):
        assert cli.run(["train", "grpo", "--preset", "gsm8k-tiny"]) == 0
        assert cli.run(["train", "sft", "--dataset", "arithmetic", "--dry-run"]) == 0
        assert [call[1] for call in trained] == [Invocation("gsm8k-tiny"), Invocation("sft", dry_run=True)]

    def test_json_is_the_only_thing_on_standard_output(self, trained, capsys):
        assert cli.run(["train", "sft", "--dataset", "arithmetic", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"num_steps": 3}

    def test_without_json_standard_output_is_empty(self, trained, capsys):
        assert cli.run(["train", "sft", "--dataset", "arithmetic"]) == 0
        assert capsys.readouterr().out == ""


class TestNothingToTrainOn:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_says_where_to_find_a_preset(self, command, trained, capsys):
        assert cli.run([*command.split("/"), "--max-steps", "3"]) == 2
        error = capsys.readouterr().err
        assert f"llmkit presets list {command}" in error
        assert "--dataset NAME" in error

    def test_a_data_set_in_the_environment_is_enough(self, trained, monkeypatch):
        monkeypatch.setenv("LLMKIT__DATASET__NAME", "arithmetic")
        assert cli.run(["train", "sft"]) == 0
        assert trained[0][0].run.dataset.name == "arithmetic"


class TestResume:
    def run_of(self, command: str, directory, **settings) -> None:
        directory.mkdir(parents=True)
        text = "".join(f"{key}: {value}\n" for key, value in settings.items())
        words = command.replace("/", " ")
        (directory / "config.yaml").write_text(f"# llmkit {words}\n{text}dataset: {{name: arithmetic}}\n")

    def resume(self, command: str, **given):
        return train_cli.prepare(command, {**NOTHING, "resume": True, **given})

    def test_takes_the_settings_of_the_directory(self, tmp_path):
        self.run_of("train/sft", tmp_path / "mine", seed=17)
        resolved, invocation = self.resume("train/sft", output_dir=str(tmp_path / "mine"))
        assert (resolved.run.seed, resolved.run.output_dir) == (17, str(tmp_path / "mine"))
        assert invocation.resume

    def test_a_directory_given_by_set_counts_too(self, tmp_path):
        self.run_of("train/sft", tmp_path / "mine", seed=17)
        resolved, _ = self.resume("train/sft", overrides=["output_dir=mine"])
        assert resolved.run.seed == 17

    def test_alone_takes_the_newest_run_of_the_command(self, tmp_path):
        self.run_of("train/sft", tmp_path / "runs" / "a", seed=1)
        self.run_of("train/grpo", tmp_path / "runs" / "b", seed=2)
        resolved, _ = self.resume("train/sft")
        assert (resolved.run.seed, resolved.run.output_dir) == (1, "runs/a")

    def test_options_may_change_the_run(self, tmp_path):
        self.run_of("train/sft", tmp_path / "runs" / "a", max_steps=5)
        resolved, _ = self.resume("train/sft", max_steps=9)
        assert resolved.run.max_steps == 9

    def test_without_any_run_says_so(self):
        with pytest.raises(CheckpointError, match="no run of `llmkit train sft` to resume"):
            self.resume("train/sft")

    def test_another_commands_run_is_refused(self, tmp_path):
        self.run_of("train/grpo", tmp_path / "mine")
        with pytest.raises(CheckpointError, match="llmkit train grpo"):
            self.resume("train/sft", output_dir=str(tmp_path / "mine"))

    def test_with_a_preset_the_preset_is_the_base(self, tmp_path):
        self.run_of("train/grpo", tmp_path / "runs" / "a", seed=99)
        resolved, invocation = self.resume("train/grpo", preset="gsm8k-tiny")
        assert resolved.run.seed != 99
        assert invocation == Invocation("gsm8k-tiny", resume=True)


def test_an_unknown_preset_is_a_config_error():
    with pytest.raises(ConfigError, match="gsm8k-tiny"):
        train_cli.prepare("train/grpo", {**NOTHING, "preset": "gsm8k-tinny"})


class TestAlgorithms:
    def resolved(self, trained, line: str):
        assert cli.run(line.split()) == 0
        return trained[-1][0]

    def test_a_named_algorithm_lies_over_the_preset_and_under_files_and_flags(self, trained, tmp_path):
        (tmp_path / "run.yaml").write_text("algorithm: {clip_high: 0.5}\n")
        line = "train grpo --preset gsm8k --algorithm dapo --config run.yaml --set algorithm.updates_per_step=2"
        resolved = self.resolved(trained, line)
        algorithm = resolved.run.algorithm
        assert (algorithm.clip_high, algorithm.updates_per_step, algorithm.max_sampling_rounds) == (0.5, 2, 8)
        assert resolved.run.batch.prompts_per_step == 32
        assert resolved.origin("algorithm.max_sampling_rounds").place.partition(":")[0].endswith("algorithms/dapo.yaml")

    def test_a_file_of_ones_own_is_an_algorithm_too(self, trained, tmp_path):
        (tmp_path / "mine.yaml").write_text("extends: algorithms/gspo\nalgorithm: {clip_high: 1e-3}\n")
        algorithm = self.resolved(trained, "train grpo --preset gsm8k-tiny --algorithm mine.yaml").run.algorithm
        assert (algorithm.ratio, algorithm.clip_high) == ("sequence", 1e-3)

    def test_an_unknown_one_is_told_with_those_there_are(self, trained, capsys):
        assert cli.run(["train", "grpo", "--preset", "gsm8k-tiny", "--algorithm", "dpao"]) == 2
        err = capsys.readouterr().err
        assert "--algorithm dpao: no algorithm of this name for `llmkit train grpo`. Did you mean 'dapo'?" in err
        assert "sapo" in err
        assert trained == []

    def test_of_another_command_is_unknown(self, trained, capsys):
        assert cli.run(["train", "dpo", "--preset", "preference", "--algorithm", "dapo"]) == 2
        assert "There are: cdpo, length_normalized, robust, rpo" in capsys.readouterr().err

    def test_alone_it_is_no_run(self, trained, capsys):
        assert cli.run(["train", "grpo", "--algorithm", "dapo"]) == 2
        assert "nothing to train on" in capsys.readouterr().err

    def test_resumed_it_lies_over_the_settings_of_the_run(self, tmp_path):
        run = tmp_path / "runs" / "a"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(
            "# llmkit train grpo\ndataset: {name: arithmetic}\nalgorithm: {average: token, clip_high: 0.3}\n"
        )
        resolved, _ = train_cli.prepare("train/grpo", {**NOTHING, "resume": True, "algorithm": "gspo"})
        assert (resolved.run.algorithm.average, resolved.run.algorithm.clip_high) == ("sequence", 4e-4)

    def test_losses_are_named_by_a_flag_each_with_a_weight_or_none(self, trained):
        resolved = self.resolved(trained, "train dpo --dataset arithmetic --loss ipo --loss sft=0.5")
        assert resolved.run.algorithm.weights == {"ipo": 1.0, "sft": 0.5}
        assert resolved.origin("algorithm.losses.sft").place == "--loss"

    @pytest.mark.parametrize(
        ("loss", "message"),
        [
            (
                "sigmod",
                "--loss: algorithm.losses: no preference loss named 'sigmod' (algorithm.losses.sigmod). Did you mean",
            ),
            ("sft=lots", "--loss sft=lots: the weight must be a number, as in --loss sft=0.5"),
        ],
    )
    def test_a_loss_that_is_none_is_told_with_its_flag(self, trained, capsys, loss: str, message: str):
        assert cli.run(["train", "dpo", "--dataset", "arithmetic", "--loss", loss]) == 2
        assert message in capsys.readouterr().err
