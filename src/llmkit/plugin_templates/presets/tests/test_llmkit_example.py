from llmkit.config.resolve import resolve
from llmkit.config.runs import SFTRun
from llmkit.testing.presets import PresetsContract


class TestPresets(PresetsContract):
    name = "example_name"


def test_the_preset_sets_the_number_of_steps():
    assert resolve(SFTRun, command="train/sft", preset="llmkit-example:example_name", environ={}).run.max_steps == 100
