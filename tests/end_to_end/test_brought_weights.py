"""GRPO with an engine that has weights of its own, as servers do: what has to be brought, and what happens if not."""

import json
import signal
from pathlib import Path

import pytest

from llmkit import cli

from .conftest import Command, read_metrics
from .test_resume import comparable, wait_for_step

COPIES = '''
"""Servers that are a copy of the policy in the trainer's process."""
import copy
from dataclasses import replace

from llmkit import plugins
from llmkit.config.servers import ServerEngineConfig
from llmkit.engines.servers.program import Program
from llmkit.models.policy import Policy

PROGRAM = Program(name="copies", title="Copies", command=(), options={})


class Config(ServerEngineConfig):
    """They run already, as it were."""

    urls: tuple[str, ...] = ("http://127.0.0.1:1",)
    arrives: bool = True
    """Whether new weights get there."""


def build(config, context):
    return Copies(config, context)


class Copies:
    def __init__(self, config, context):
        self.policy, self.arrives, self.log = context.policy, config.arrives, context.directory / "loads.txt"
        self.copy = Policy(copy.deepcopy(self.policy.model).eval(), self.policy.device, self.policy.compute_dtype)
        for parameter in self.copy.model.parameters():
            parameter.data.zero_()  # what a server was started with is not what the policy has
        native = plugins.load("engines", "native")
        self.engine = native.build(native.Config(runner="sequence"), replace(context, policy=self.copy))

    def __getattr__(self, name):
        return getattr(self.engine, name)

    async def load_weights(self, version):
        if self.arrives or version == 0:
            self.copy.model.load_state_dict(self.policy.model.state_dict())
        with self.log.open("a") as log:
            log.write(f"{version}\\n")
        await self.engine.load_weights(version)
'''
SHARE = '''
"""Share of some tokens, for models that know nothing."""
from llmkit.config.section import Section
class Config(Section):
    pass
def build(config):
    return lambda rollout: sum(token % 7 == 3 for token in rollout.token_ids) / 100
'''
LEARNS = ["--learning-rate", "1e-2", "--reward", "share", "--group-size", 4, "--max-new-tokens", 8]


@pytest.fixture(autouse=True)
def _plugins(fake_package):
    fake_package("llmkit-copies", {"engines": {"copies": "copies"}}, {"copies.py": COPIES})
    fake_package("llmkit-share", {"rewards": {"share": "share"}}, {"share.py": SHARE})


def finish(*arguments: object, code: int = 0) -> None:
    assert cli.run([str(argument) for argument in arguments]) == code


def versions(run: Path, step: int) -> set[int]:
    """Of the tokens that were sampled for a step."""
    lines = (run / "rollouts" / f"step-{step:05d}.jsonl").read_text().splitlines()
    return {version for line in lines for version in json.loads(line)["versions"] if version >= 0}


def test_every_step_samples_with_the_weights_of_the_one_before(grpo: list[object], tmp_path: Path):
    finish(*grpo, *LEARNS, "--engine", "copies", "--output-dir", tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert row["grad_norm"] > 0
        assert row["staleness_max"] == 0
        assert row["logprob_mismatch_abs_p_max"] < 1e-4
        assert row["logprob_mismatch_ratio_max"] == pytest.approx(1.0, abs=1e-3)
        assert versions(tmp_path / "run", row["step"]) == {row["step"] - 1}
    assert (tmp_path / "run" / "loads.txt").read_text().split() == ["0", "1", "2", "3", "4"]


def test_weights_that_do_not_arrive_ring_the_alarm_from_the_second_step_on(
    grpo: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lost = ["--engine", "copies", "--set", "engine.arrives=false", "--set", "algorithm.mismatch.max_kl=1e-5"]
    finish(*grpo, *LEARNS, *lost, "--output-dir", tmp_path / "run")
    warned = capsys.readouterr().err
    assert "step 1: the trainer" not in warned
    assert "step 2: the trainer and engine 'copies' disagree" in warned
    kl = [row["logprob_mismatch_kl"] for row in read_metrics(tmp_path / "run")]
    assert kl[0] < 1e-6 < kl[1] < kl[3]


def test_a_dry_run_starts_no_server_and_leaves_memory_to_them(
    grpo: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import copies  # type: ignore[import-not-found]

    monkeypatch.setattr(copies, "build", lambda config, context: pytest.fail("a server was started"))
    finish(*grpo, "--engine", "copies", "--dry-run", "--json", "--output-dir", tmp_path / "run")
    captured = capsys.readouterr()
    figures = json.loads(captured.out)
    assert figures["kv_cache_bytes"] == 0
    assert figures["step_seconds"] > 0
    assert "engine.name=copies: no server was started. Memory and times above are the trainer's alone" in captured.err
    assert "engine.tp=1" in captured.err


def test_servers_that_cannot_start_are_refused_before_anything_is_loaded(
    fake_package, grpo: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    absent = COPIES.replace('("http://127.0.0.1:1",)', "()").replace("command=(),", 'command=(), module="no_such",')
    fake_package("llmkit-absent", {"engines": {"absent": "absent"}}, {"absent.py": absent})
    model = ["--model", tmp_path / "nowhere"]
    finish(*grpo, *model, "--engine", "absent", "--output-dir", tmp_path / "run", code=2)
    assert "Copies is not installed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_killed_and_resumed_its_servers_get_the_weights_of_the_checkpoint_first(
    grpo: list[object], llmkit: Command, tmp_path: Path
):
    settings = [*grpo, *LEARNS, "--engine", "copies", "--max-steps", 8, "--checkpoint-every", 2]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    llmkit.run(*settings, "--output-dir", whole)
    process = llmkit.start([*settings, "--output-dir", killed])
    wait_for_step(killed, 5, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = (killed / "loads.txt").read_text().split()
    llmkit.run("train", "grpo", "--resume", "--output-dir", killed)
    assert comparable(killed) == comparable(whole)
    loads = (killed / "loads.txt").read_text().split()[len(before) :]
    assert int(loads[0]) in (2, 4, 6)  # the newest checkpoint's that was whole
    assert loads == [str(step) for step in range(int(loads[0]), 9)]
    for step in range(1, 9):
        name = f"step-{step:05d}.jsonl"
        assert (killed / "rollouts" / name).read_text() == (whole / "rollouts" / name).read_text()
