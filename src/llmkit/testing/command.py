"""What every command promises: help without a wait, and usage errors with exit code 2."""

import subprocess
import sys

from llmkit import plugins
from llmkit.testing.front import PluginContract


class CommandContract(PluginContract):
    """Subclass it and set `name`."""

    kind = "commands"

    def test_it_is_a_typer_app(self) -> None:
        from typer import Typer

        assert isinstance(plugins.load(self.kind, self.name), Typer)

    def test_its_help_begins_with_its_usage(self) -> None:
        done = self.run("--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.lstrip().startswith(f"Usage: llmkit {self.name}")

    def test_an_unknown_option_is_bad_input(self) -> None:
        done = self.run("--no-such-option-anywhere")
        assert done.returncode == 2
        assert "--no-such-option-anywhere" in done.stderr
        assert "Traceback" not in done.stderr

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `llmkit NAME ...` in a process of its own."""
        command = [sys.executable, "-m", "llmkit", self.name, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)
