from typing import Any

import pytest

from llmkit.config.resolve import resolve
from llmkit.config.runs import SCHEMAS
from llmkit.errors import ConfigError
from llmkit.train.dry_run.processes import tell_of_processes


def run(*overrides: str) -> Any:
    return resolve(
        SCHEMAS["train/sft"], command="train/sft", overrides=["dataset=arithmetic", *overrides], environ={}
    ).run


def test_copies_are_told_of(capsys: pytest.CaptureFixture[str]):
    tell_of_processes(run(), 2)
    assert "--nproc 2: the figures are of one process" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("setting", ["parallel.strategy=fsdp", "parallel.tensor=2"])
def test_divided_weights_are_refused(setting: str):
    with pytest.raises(ConfigError, match=r"--dry-run --nproc 2: .*take a few real steps with --max-steps 3"):
        tell_of_processes(run(setting), 2)
