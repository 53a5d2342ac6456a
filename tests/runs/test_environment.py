import json
from pathlib import Path

import pytest

from llmkit.runs.environment import describe_environment, git_commit, mask_secrets


@pytest.mark.parametrize(
    ("arguments", "masked"),
    [
        (["--set", "trackers.0.api_key=abc"], ["--set", "trackers.0.api_key=***"]),
        (["--api-key", "abc", "--seed", "3"], ["--api-key", "***", "--seed", "3"]),
        (["--hf-token=abc"], ["--hf-token=***"]),
        (["--set", "engine.password=a=b"], ["--set", "engine.password=***"]),
        (["https://user:abc@host/x"], ["https://user:***@host/x"]),
        (["--set", "sampling.max_new_tokens=64"], ["--set", "sampling.max_new_tokens=64"]),
        (["--max-new-tokens", "64"], ["--max-new-tokens", "64"]),
        (["--set", "tokenizer=x"], ["--set", "tokenizer=x"]),
    ],
)
def test_secrets_on_the_command_line_are_masked(arguments: list[str], masked: list[str]):
    assert mask_secrets(arguments) == masked


def test_the_environment_is_plain_json_with_versions_and_machine():
    found = json.loads(json.dumps(describe_environment(["llmkit", "train", "sft"])))
    assert found["command_line"] == ["llmkit", "train", "sft"]
    assert {"python", "torch", "transformers"} <= found["versions"].keys()
    assert found["machine"]["num_cores"] >= 1
    assert found["machine"]["memory_bytes"] > 0


def test_no_commit_outside_a_repository(tmp_path: Path):
    assert git_commit(tmp_path) is None
