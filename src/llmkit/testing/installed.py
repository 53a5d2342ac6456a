"""The contract of one installed plugin with default settings: `LLMKIT_CHECK=rewards/gsm8k` says which.

`llmkit plugins check` runs this module with pytest.
"""

import os
from importlib import import_module
from typing import Any

import pytest
from pydantic import ValidationError

from llmkit import plugins
from llmkit.errors import LLMKitError

CONTRACTS = {
    "adapters": "adapter:AdapterContract",
    "commands": "command:CommandContract",
    "datasets": "dataset:DatasetContract",
    "engines": "engine:EngineContract",
    "formatters": "formatter:FormatterContract",
    "models": "model:ModelContract",
    "optimizers": "optimizer:OptimizerContract",
    "presets": "presets:PresetsContract",
    "rewards": "reward:RewardContract",
    "stores": "store:StoreContract",
    "trackers": "tracker:TrackerContract",
    "workflows": "workflow:WorkflowContract",
}


class WithDefaults:
    """Skips what only the plugin's author can set up."""

    kind: str
    name: str

    def config(self) -> Any:
        """The plugin's `Config` without any option."""
        try:
            return plugins.load(self.kind, self.name).Config()
        except ValidationError as error:
            needed = ", ".join(str(problem["loc"][0]) for problem in error.errors())
            pytest.skip(f"the plugin needs settings: {needed}")

    def build(self, *arguments: Any, **options: Any) -> Any:
        """The plugin, where it works with its defaults."""
        try:
            return super().build(*arguments, **options)  # type: ignore[misc] - of the contract beside this class
        except LLMKitError as error:
            pytest.skip(f"the plugin cannot be built with its defaults: {error}")

    def attached(self) -> Any:
        """Adapters: one on the small model, which some do not fit with their defaults."""
        try:
            return super().attached()  # type: ignore[misc] - of the contract beside this class
        except LLMKitError as error:
            pytest.skip(f"the adapter does not fit a small model with its defaults: {error}")

    def source_rows(self) -> Any:
        """Formatters: rows are for the author to give."""
        pytest.skip("example rows are needed; the plugin's own tests have them")


def contract_of(kind: str) -> Any:
    """The contract of a kind of plugin."""
    module, _, name = CONTRACTS[kind].partition(":")
    return getattr(import_module(f"llmkit.testing.{module}"), name)


kind, _, name = os.environ["LLMKIT_CHECK"].partition("/")
TestPlugin = type("TestPlugin", (WithDefaults, contract_of(kind)), {"kind": kind, "name": name})
