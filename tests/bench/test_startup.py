"""`llmkit bench startup`: real processes, from their start to their first answer or step."""

import json

import pytest

from llmkit import cli


def test_commands_and_servers_are_started_and_timed(capsys: pytest.CaptureFixture[str]):
    line = ["--only", "commands", "--only", "serve", "--engine", "echo", "--model", "builtin:tiny-untrained"]
    assert cli.run(["bench", "startup", *line, "--repeats", "1", "--json"]) == 0
    results = {one["name"]: one for one in json.loads(capsys.readouterr().out)["results"]}
    assert {"startup/python", "startup/llmkit --version", "startup/llmkit serve (echo)"} <= results.keys()
    assert 0 < results["startup/python"]["seconds"] < results["startup/llmkit serve (echo)"]["seconds"]


@pytest.mark.slow
def test_the_first_training_step_is_timed(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["bench", "startup", "--only", "train", "--repeats", "1", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["results"]
    assert one["name"] == "startup/llmkit train sft"
    assert one["seconds"] > 0


def test_options_that_do_nothing_are_refused(capsys: pytest.CaptureFixture[str]):
    for line, said in (
        (["--python", "x"], "no effect without --compare"),
        (["--compare", "trl"], "needs --python"),
        (["--compare", "vllm", "--only", "train"], "has no effect on --only train"),
    ):
        assert cli.run(["bench", "startup", *line]) == 2
        assert said in capsys.readouterr().err
