"""What every preset package promises: each file lies in a command's folder, says what it is for, and resolves."""

from llmkit import plugins
from llmkit.bench.presets import check_preset
from llmkit.config.presets import Preset, list_presets
from llmkit.config.resolve import resolve
from llmkit.config.runs import schema_of
from llmkit.testing.front import PluginContract

BENCH = "bench/"
"""Presets in such folders hold the options of a benchmark, and no run."""


class PresetsContract(PluginContract):
    """Subclass it and set `name`."""

    kind = "presets"

    def presets(self) -> list[Preset]:
        """The presets of the plugin's package."""
        package = plugins.find(self.kind, self.name).package
        return [preset for preset in list_presets() if preset.package == package]

    def test_it_holds_presets(self) -> None:
        assert self.presets()

    def test_each_begins_with_a_comment_that_says_what_it_is_for(self) -> None:
        assert [preset.name for preset in self.presets() if not preset.summary] == []

    def test_each_resolves(self) -> None:
        for preset in self.presets():
            command = preset.command
            name = f"{preset.package}:{preset.name.removeprefix(f'{command}/')}"
            if command.startswith(BENCH):
                check_preset(command.removeprefix(BENCH), name)
                continue
            data = ["dataset.name=arithmetic"] if preset.is_algorithm else []
            resolve(schema_of(command), command=command, preset=name, overrides=data, environ={})
