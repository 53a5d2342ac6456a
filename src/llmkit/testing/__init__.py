"""Conformance tests for plugins, for pytest: subclass the contract of your kind and name your plugin.

    from llmkit.testing.reward import RewardContract

    class TestPoliteness(RewardContract):
        name = "politeness"

The plugin must be installed (`pip install -e .`), or run by `llmkit plugins check DIRECTORY`.
"""

import pytest

# A failed `assert` in a contract shows its values, as one in a test file does.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "adapter", "command", "dataset", "engine", "formatter", "front", "model", "optimizer", "presets", "reward",
            "store", "tracker", "workflow",
        )
    )
)  # fmt: skip
