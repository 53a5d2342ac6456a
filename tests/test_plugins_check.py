"""The conformance tests find the faults that they are for; that they pass sound plugins is in `test_plugins_new.py`."""

import pytest

from llmkit.errors import PluginError
from llmkit.plugins_check import check_package, check_plugin
from llmkit.plugins_new import create

FRONT = '''
"""A plugin."""
from llmkit.config.section import Section
class Config(Section): ...
'''

UNREPEATABLE_DATASET = """
import random
from llmkit.types import Row, Source
class Rows:
    def __len__(self): return 3
    def __getitem__(self, index):
        if index >= 3: raise IndexError(index)
        return Row({"text": random.random()}, Source("rows", index + 1))
def build(config): return Rows()
"""
NAN_REWARD = """
def build(config): return lambda rollout: float("nan")
"""
TALKATIVE_TRACKER = """
class Talkative:
    def log(self, metrics): print(metrics)
    def close(self): pass
def build(config, run_dir, resolved, resumed): return Talkative()
"""
SILENT_ENGINE = """
from llmkit.engines.inference.echo import Config as EchoConfig, EchoEngine
from llmkit.types import Completion
class Silent(EchoEngine):
    async def generate(self, prompt_ids, sampling):
        completion = await super().generate(prompt_ids, sampling)
        return Completion(completion.token_ids, [], completion.versions, completion.stop_reason)
def build(config, context): return Silent(EchoConfig())
"""
DEAF_ENGINE = """
from llmkit.engines.inference.echo import Config as EchoConfig, EchoEngine
class Deaf(EchoEngine):
    async def pause(self): pass
def build(config, context): return Deaf(EchoConfig())
"""
GREEDY_WORKFLOW = """
from dataclasses import replace
from llmkit.rollout.workflows.single_turn import SingleTurn
class Greedy(SingleTurn):
    async def run(self, *arguments):
        rollout = await super().run(*arguments)
        return replace(rollout, loss_mask=[1] * len(rollout.token_ids))
def build(config): return Greedy()
"""
FROZEN_ADAPTER = """
class Frozen:
    def attach(self, model): return model.requires_grad_(False)
    def restore(self, model, directory): return self.attach(model)
def build(config): return Frozen()
"""
HEAVY_REWARD = """
import numpy
def build(config): return lambda rollout: 0.0
"""


@pytest.mark.parametrize(
    ("kind", "source", "fault"),
    [
        ("datasets", UNREPEATABLE_DATASET, "test_rows_can_be_read_again_in_any_order"),
        ("rewards", NAN_REWARD, "test_rewards_are_finite_numbers"),
        ("rewards", HEAVY_REWARD, "test_importing_it_is_quick"),
        ("trackers", TALKATIVE_TRACKER, "test_it_takes_metrics_and_leaves_standard_output_alone"),
        ("engines", SILENT_ENGINE, "test_a_completion_has_a_logprob_and_a_version_for_each_token"),
        ("engines", DEAF_ENGINE, "test_a_pause_ends_what_runs_and_holds_what_comes"),
        ("workflows", GREEDY_WORKFLOW, "test_what_is_trained_is_what_was_sampled"),
        ("adapters", FROZEN_ADAPTER, "test_what_is_marked_trains_and_nothing_else"),
    ],
)
def test_a_fault_is_found_and_named(kind, source, fault, fake_package, capfd):
    fake_package("acme", {kind: {"faulty": "acme_faulty"}}, {"acme_faulty.py": FRONT + source})
    assert not check_plugin(kind, "faulty")
    assert fault in capfd.readouterr().err


def test_a_package_whose_own_tests_fail_fails(tmp_path):
    package = create("presets", "mine", tmp_path)
    (package / "tests" / "test_more.py").write_text("def test_it():\n    assert 1 + 1 == 3\n")
    assert not check_package(package)


class TestPackageThatIsNone:
    def refuse(self, directory, text, complaint):
        (directory / "pyproject.toml").write_text(text)
        with pytest.raises(PluginError, match=complaint):
            check_package(directory)

    def test_declares_no_plugin(self, tmp_path):
        self.refuse(tmp_path, '[project]\nname = "x"\n', "declares a plugin")

    def test_has_no_name(self, tmp_path):
        self.refuse(tmp_path, '[project]\nversion = "1"\n', "has no name")

    def test_is_no_project(self, tmp_path):
        self.refuse(tmp_path, "[tool.x]\n", r"no \[project\] table")

    def test_is_no_toml(self, tmp_path):
        self.refuse(tmp_path, "[project\n", r"pyproject\.toml")

    def test_declares_a_kind_that_there_is_not(self, tmp_path):
        text = '[project]\nname = "x"\n[project.entry-points."llmkit.engin"]\na = "b"\n'
        self.refuse(tmp_path, text, "Did you mean 'engines'")
