"""The plugins that come with llmkit keep the contracts that third parties test theirs with."""

from typing import Any, ClassVar

import pytest

from llmkit import plugins
from llmkit.config.sending import section_of
from llmkit.testing.adapter import AdapterContract
from llmkit.testing.command import CommandContract
from llmkit.testing.front import PluginContract
from llmkit.testing.model import ModelContract
from llmkit.testing.reward import RewardContract
from llmkit.testing.samples import rollout
from llmkit.testing.tracker import TrackerContract
from llmkit.testing.workflow import WorkflowContract


class TestFull(AdapterContract):
    name = "full"


class TestLoRA(AdapterContract):
    name = "lora"
    options: ClassVar[dict[str, Any]] = {"r": 4}


class TestPromptTuning(AdapterContract):
    name = "prompt_tuning"
    options: ClassVar[dict[str, Any]] = {"num_virtual_tokens": 3}


class TestGSM8KReward(RewardContract):
    name = "gsm8k"
    better = ((rollout("#### 7"), rollout("#### 8")), (rollout("The answer is $7.00."), rollout("no idea")))


class TestMathReward(RewardContract):
    name = "math"
    better = ((rollout(r"\boxed{\frac{14}{2}}"), rollout(r"\boxed{8}")),)


class TestMatch(RewardContract):
    name = "match"
    better = ((rollout(" 7 "), rollout("17")),)


class TestFormat(RewardContract):
    name = "format"
    options: ClassVar[dict[str, Any]] = {"tags": ("answer",)}
    better = ((rollout("<answer>7</answer>"), rollout("7")),)


class TestLength(RewardContract):
    name = "length"
    options: ClassVar[dict[str, Any]] = {"max_tokens": 20, "buffer_tokens": 10}
    better = ((rollout("x" * 15), rollout("x" * 16)),)


class TestRepetition(RewardContract):
    name = "repetition"
    better = ((rollout("abcdefgh"), rollout("abababab")),)


class TestSum(RewardContract):
    name = "sum"
    better = ((rollout("#### 7"), rollout("#### 7777777")), (rollout("#### 7"), rollout("#### 8")))

    def config(self) -> Any:
        length = {"name": "length", "target_tokens": 6}
        return section_of("rewards", {"name": "sum", "rewards": [{"reward": "gsm8k"}, {"reward": length}]})


class TestSingleTurn(WorkflowContract):
    name = "single_turn"


class TestMultiTurn(WorkflowContract):
    name = "multi_turn"

    def config(self) -> Any:
        return section_of("workflows", {"name": "multi_turn", "max_turns": 2})


class TestMathWorkflow(WorkflowContract):
    name = "math"
    options: ClassVar[dict[str, Any]] = {"instruction": "Box it."}


class TestConsole(TrackerContract):
    name = "console"


class TestJSONL(TrackerContract):
    name = "jsonl"


class TestTinyUntrained(ModelContract):
    name = "tiny-untrained"


@pytest.mark.parametrize("name", ["bench", "config", "convert", "data", "doctor", "plugins", "presets", "train"])
def test_our_commands_keep_the_contract(name: str):
    contract = type(name, (CommandContract,), {"name": name})()
    for check in dir(contract):
        if check.startswith("test_"):
            getattr(contract, check)()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in plugins.KINDS if kind not in ("presets", "commands") for name in plugins.names(kind)],
)
def test_every_plugin_of_ours_is_light_and_says_what_it_is(kind: str, name: str):
    contract = type(name, (PluginContract,), {"kind": kind, "name": name})()
    contract.test_its_docstring_begins_with_a_summary()
    contract.test_importing_it_is_quick()
