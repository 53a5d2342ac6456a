"""Programs of models against the tests of a row."""

import asyncio
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmkit.errors import RewardError
from llmkit.rollout.sandbox.sandbox import Sandbox
from llmkit.types import Rollout

if TYPE_CHECKING:
    from llmkit.rollout.rewards.code import Config

BLOCK = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
LANGUAGES = ("python", "py", "python3", "")
HARNESS = """
import json, os, sys
job = json.loads(sys.stdin.readline())
answer, sys.stdin = os.fdopen(os.dup(1), "w"), open(os.devnull)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
names = {"__name__": "__main__"}
passed = False
try:
    exec(compile(job["program"], "program.py", "exec"), names)
    exec(compile(job["test"], "test.py", "exec"), names)
    passed = True
finally:
    if passed:
        answer.write(job["word"])
        answer.flush()
"""
"""A program that ends early, or prints what it likes, has not passed: it would have to say the word."""


@dataclass(frozen=True)
class Test:
    """One test: statements that raise nothing, or what a program prints for an input."""

    __test__ = False  # to pytest

    code: str = ""
    stdin: str | None = None
    output: str = ""


class CodeReward:
    """The reward. Each test is a program of its own, so that one cannot spoil the next."""

    def __init__(self, config: "Config") -> None:
        self._config = config
        self._sandbox = Sandbox(config.sandbox)

    async def open(self) -> None:
        """Find out whether programs can be isolated.

        Raises:
            ConfigError: they cannot, and that is not allowed.
        """
        await self._sandbox.start()

    async def __call__(self, rollout: Rollout) -> float:
        """1 when all tests pass, or the share of those that do.

        Raises:
            RewardError: the row has no tests.
            ConfigError: programs cannot be isolated here.
        """
        tests = self._tests(rollout)
        program = last_program(rollout.last_turn)
        if program is None:
            return 0.0
        passed = await asyncio.gather(*(self._passes(program, test) for test in tests))
        return float(all(passed)) if self._config.all_or_nothing else sum(passed) / len(passed)

    async def _passes(self, program: str, test: Test) -> bool:
        if test.stdin is not None:
            ran = await self._sandbox.run(program, test.stdin)
            return ran.exit_code == 0 and _lines(ran.stdout) == _lines(test.output)
        word = secrets.token_hex(16)
        job = json.dumps({"program": program, "test": test.code, "word": word})
        return (await self._sandbox.run(HARNESS, job + "\n")).stdout == word

    def _tests(self, rollout: Rollout) -> Sequence[Test]:
        column = self._config.column
        value = rollout.record.extra.get(column)
        tests = [_test(one) for one in _listed(value)]
        if not tests or None in tests:
            raise RewardError(
                f"{rollout.record.source}: no tests for the reward 'code' in the column '{column}' (reward.column): it "
                f"must be a list of statements, or of objects with 'input' and 'output'; it is {str(value)[:60]!r}"
            )
        return [test for test in tests if test is not None]


def last_program(text: str) -> str | None:
    """The last block of Python code; None when there is none."""
    programs = [code for language, code in BLOCK.findall(text) if language.lower() in LANGUAGES]
    return programs[-1] if programs else None


def _listed(value: Any) -> list[Any]:
    """The tests one by one, whatever they are written in."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    return list(value) if isinstance(value, list | tuple) else []


def _test(value: Any) -> Test | None:
    if isinstance(value, str):
        return Test(code=value)
    if isinstance(value, dict) and isinstance(value.get("input"), str) and isinstance(value.get("output"), str):
        return Test(stdin=value["input"], output=value["output"])
    return None


def _lines(text: str) -> list[str]:
    """What counts of an output: its lines without spaces at their ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()]
