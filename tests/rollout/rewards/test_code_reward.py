import asyncio
from pathlib import Path
from typing import Any

import pytest

from llmkit.config.scoring import ScoringConfig
from llmkit.config.sending import section_of
from llmkit.errors import ConfigError, RewardError
from llmkit.rollout.rewards.code import Config, build
from llmkit.rollout.rewards.code_tests import last_program
from llmkit.rollout.sandbox import sandbox
from llmkit.rollout.sandbox.config import SandboxConfig
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.testing.samples import rollout

SANDBOX = SandboxConfig(timeout_seconds=20, allow_unisolated=True)
TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add('a', 'b') == 'ab'"]


def value(program: str, tests: Any = TESTS, **options: Any) -> float:
    reward = build(Config(sandbox=SANDBOX, **options))

    async def scored() -> float:
        return await reward(rollout(f"So:\n```python\n{program}\n```\n", tests=tests))

    return asyncio.run(scored())


def test_a_right_program_passes_and_a_wrong_one_does_not():
    assert value("def add(a, b):\n    return a + b") == 1.0
    assert value("def add(a, b):\n    return a - b") == 0.0


def test_the_share_of_tests_may_count():
    program = "def add(a, b):\n    return int(a) + int(b)"
    assert value(program) == 0.0
    assert value(program, all_or_nothing=False) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "print('passed')\nraise SystemExit",
        "while True: pass",
        "a = []\nwhile True: a.append(bytearray(1 << 24))",
        "import os\nos.kill(os.getpid(), 9)",
        "def add(:",
    ],
)
def test_a_program_that_does_not_get_to_its_tests_has_not_passed(program: str):
    reward = build(Config(sandbox=SandboxConfig(timeout_seconds=3, allow_unisolated=True)))
    one = rollout(f"```python\n{program}\n```", tests=TESTS[:1])

    async def scored() -> float:
        return await reward(one)

    assert asyncio.run(scored()) == 0.0


def test_programs_that_read_and_print():
    tests = '[{"input": "3 4\\n", "output": "7\\n"}, {"input": "1 1\\n", "output": "2"}]'
    assert value("print(sum(map(int, input().split())))", tests) == 1.0
    assert value("print(7)", tests, all_or_nothing=False) == 0.5
    assert value("print(7)\nprint(8)", tests, all_or_nothing=False) == 0.0


def test_a_whole_test_program():
    assert value("def add(a, b):\n    return a + b", "for n in range(9):\n    assert add(n, n) == 2 * n") == 1.0


def test_the_last_block_of_python_is_the_program():
    text = "```python\na\n```\n```bash\nb\n```\n```\nc\n```\n```py\nd\n```\n"
    assert last_program(text) == "d\n"
    assert last_program(text.rpartition("```py")[0]) == "c\n"
    assert last_program("no code") is None


@pytest.mark.parametrize("tests", [None, [], "", [1], [{"input": "1"}]])
def test_a_row_without_tests_is_named(tests: Any):
    with pytest.raises(RewardError, match=r"^rows\.jsonl:1: no tests for the reward 'code' in the column 'tests'"):
        value("a = 1", tests)


def test_a_machine_that_cannot_isolate_is_told_before_anything_is_scored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    jail = tmp_path / "jail.py"
    jail.write_text(sandbox.JAIL.read_text().replace("libc.unshare(", "-1 or libc.unshare("))
    monkeypatch.setattr(sandbox, "JAIL", jail)

    async def start() -> None:
        scorer = Scorer(section_of("rewards", {"name": "code"}), ScoringConfig.model_validate({}))
        try:
            await scorer.start()
        finally:
            await scorer.close()

    with pytest.raises(ConfigError, match="Code cannot be isolated here"):
        asyncio.run(start())
