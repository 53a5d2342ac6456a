import sys
from pathlib import Path

import pytest

from llmkit import plugins
from llmkit.config.section import PluginSection
from llmkit.errors import ConfigError, PluginError
from llmkit.trackers.building import build_trackers
from llmkit.trackers.progress import ProgressLines


def test_every_run_has_jsonl_and_console(tmp_path: Path):
    built = build_trackers((), tmp_path, {"max_steps": 3}, resumed=False)
    assert [tracker.name for tracker in built] == ["jsonl", "console"]
    for tracker in built:
        tracker.tracker.log({"step": 1})
        tracker.tracker.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n'


def test_one_that_is_always_there_takes_the_settings_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    class ConsoleSection(PluginSection, plugins.load("trackers", "console").Config):
        pass

    built = build_trackers(
        [ConsoleSection.model_validate({"name": "console", "every_seconds": 0})], tmp_path, {}, resumed=False
    )
    assert [tracker.name for tracker in built] == ["jsonl", "console"]
    console = built[1].tracker
    assert isinstance(console, ProgressLines)
    for step in (1, 2, 3):
        console.log({"step": step})
    assert len(capsys.readouterr().err.splitlines()) == 3
    for tracker in built:
        tracker.tracker.close()


def test_a_tracker_named_twice_is_refused(tmp_path: Path):
    sections = [PluginSection(name="tensorboard"), PluginSection(name="tensorboard")]
    with pytest.raises(ConfigError, match="'tensorboard' is named twice"):
        build_trackers(sections, tmp_path, {}, resumed=False)


def test_an_unknown_tracker_is_named(tmp_path: Path):
    with pytest.raises(PluginError, match="Did you mean 'wandb'"):
        build_trackers([PluginSection(name="wandbb")], tmp_path, {}, resumed=False)


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "torch.utils.tensorboard.writer"), ("wandb", "wandb"),
                                               ("trackio", "trackio")])  # fmt: skip
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)  # how Python marks a module that cannot be imported
    plugin = plugins.load("trackers", name)
    with pytest.raises(PluginError, match=rf"'{name}' needs the package {name}: pip install 'llmkit\[{name}\]'"):
        plugin.build(plugin.Config(), tmp_path, {}, False)
