"""The plugins that come with llmkit keep the contracts that third parties test theirs with."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from llmkit import plugins
from llmkit.testing.adapter import AdapterContract
from llmkit.testing.command import CommandContract
from llmkit.testing.dataset import DatasetContract
from llmkit.testing.formatter import FormatterContract
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


class TestArithmetic(DatasetContract):
    name = "arithmetic"
    options: ClassVar[dict[str, Any]] = {"size": 30}
    bad_options = ({"min_steps": 3, "max_steps": 2}, {"size": 0})


class TestFiles(DatasetContract):
    name = "files"

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
        self.path = tmp_path / "rows.jsonl"

    def build(self) -> Any:
        plugin = self.plugin()
        return plugin.build(plugin.Config(path=str(self.path)))


class TestMessages(FormatterContract):
    name = "messages"
    rows = (
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "weight": 0}], "id": 3},
    )
    bad_rows = ({"messages": "hi"}, {"messages": [{"role": "nobody", "content": "hi"}]}, {"messages": []})


class TestQuestionAnswer(FormatterContract):
    name = "question_answer"
    rows = ({"question": "1+1?", "answer": "1+1=2\n#### 2"}, {"question": "Who?", "answer": "Me", "level": 2})
    bad_rows = ({"answer": "2"}, {"question": ["1+1?"], "answer": "x"})


class TestPromptCompletion(FormatterContract):
    name = "prompt_completion"
    rows = ({"prompt": "Say a.", "completion": "a"},)
    bad_rows = ({"completion": "a"}, {"prompt": {"text": "Say a."}, "completion": "a"})


class TestPreference(FormatterContract):
    name = "preference"
    rows = ({"prompt": "Say a.", "chosen": "a", "rejected": "b"},)
    bad_rows = ({"prompt": "Say a.", "chosen": "a"},)


class TestGSM8KReward(RewardContract):
    name = "gsm8k"
    better = ((rollout("#### 7"), rollout("#### 8")), (rollout("The answer is $7.00."), rollout("no idea")))


class TestSingleTurn(WorkflowContract):
    name = "single_turn"


class TestConsole(TrackerContract):
    name = "console"


class TestJSONL(TrackerContract):
    name = "jsonl"


class TestTinyUntrained(ModelContract):
    name = "tiny-untrained"


@pytest.mark.parametrize("name", ["config", "doctor", "plugins", "presets", "train"])
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
