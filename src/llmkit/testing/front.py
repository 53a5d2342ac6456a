"""What every plugin promises, and every one with `Config` and `build`."""

import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from llmkit import plugins
from llmkit.config.section import Section

HEAVY = ("torch", "transformers", "datasets", "numpy", "pandas", "peft", "accelerate")
"""Packages that importing a plugin must not import: settings are checked and plugins listed before work starts."""


class PluginContract:
    """What holds for a plugin of any kind. Subclass the contract of your kind, which includes this one.

    Attributes:
        kind: the plugin's kind, set by the contract.
        name: the plugin's name.
    """

    kind: ClassVar[str]
    name: ClassVar[str]

    def test_is_installed_and_usable(self) -> None:
        report = plugins.inspect(self.kind, self.name)
        assert report.state == "ok", f"{report.plugin}: {report.state}: {report.detail}"

    def test_its_docstring_begins_with_a_summary(self) -> None:
        line = plugins.summary(self.kind, self.name)
        assert line, (
            f"give {plugins.find(self.kind, self.name).target} a docstring; `plugins list` shows its first line"
        )
        assert len(line) <= 120, f"the summary has {len(line)} characters; say it in 120"

    def test_importing_it_is_quick(self) -> None:
        loaded = modules_loaded_by(plugins.find(self.kind, self.name).module)
        heavy = sorted(loaded.intersection(HEAVY))
        assert not heavy, (
            f"importing the plugin imports {', '.join(heavy)}; import them inside the function that uses them"
        )


class FrontContract(PluginContract):
    """What holds for a plugin with `Config` and `build`.

    Attributes:
        options: values for its `Config`.
    """

    options: ClassVar[Mapping[str, Any]] = {}

    def plugin(self) -> Any:
        """The plugin's front."""
        return plugins.load(self.kind, self.name)

    def config(self) -> Any:
        """Its `Config`, from `options`."""
        return self.plugin().Config(**self.options)

    def test_its_config_is_a_section(self) -> None:
        config = self.plugin().Config
        assert issubclass(config, Section), "derive Config from llmkit.config.section.Section"
        assert "name" not in config.model_fields, "`name` chooses the plugin; call the field something else"


@cache
def modules_loaded_by(module: str) -> set[str]:
    """Top-level packages in a fresh Python after importing `module`."""
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"importing {module} fails:\n{done.stderr}"
    return set(done.stdout.split())
