import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmkit import plugins
from llmkit.config.sending import section_of
from llmkit.data.chat.builtin_templates import read_template
from llmkit.data.codec import TextCodec
from llmkit.engines.inference.echo import Config as EchoConfig
from llmkit.engines.inference.echo import EchoEngine
from llmkit.errors import ConfigError, DataError, ModelError
from llmkit.rollout.opening import close_workflow, open_workflow
from llmkit.rollout.workflows.tool_loop import read_calls
from llmkit.testing.samples import record
from llmkit.testing.tiny import tiny_codec
from llmkit.types import Message, Record, Rollout, SamplingParams, ToolCall

CODEC = TextCodec(tiny_codec().tokenizer, read_template("qwen"))
SAMPLING = SamplingParams(max_new_tokens=4000, stop_token_ids=CODEC.stop_token_ids)
SANDBOX = {"timeout_seconds": 30.0, "allow_unisolated": True}
TOOLS = '''
import asyncio
import os
import time


def add(a: int, b: int = 1) -> int:
    """Add two whole numbers."""
    return a + b


async def shout(text: str):
    await asyncio.sleep(0)
    return {"said": text.upper()}


def fail(text: str) -> str:
    raise KeyError(text)


def crash() -> None:
    os._exit(3)


def sleep() -> None:
    time.sleep(3600)


def vague(*args): ...
'''


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tools") / "my_tools.py"
    path.write_text(TOOLS)
    return path


def called(name: str, **arguments: Any) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


def make(
    turns: Sequence[str],
    *,
    workflow: str = "tools",
    codec: TextCodec = CODEC,
    one: Record | None = None,
    sampling: SamplingParams = SAMPLING,
    **options: Any,
) -> Rollout:
    section: Any = section_of("workflows", {"name": workflow, "sandbox": SANDBOX, **options})
    made = plugins.load("workflows", workflow).build(section)
    engine = EchoEngine(EchoConfig(texts=tuple(f"{turn}<|im_end|>" for turn in turns)), codec.tokenizer)

    async def run() -> Rollout:
        try:
            await open_workflow(made, codec)
            return await made.run(one or record(), engine, codec, sampling, 0)
        finally:
            await close_workflow(made)

    return asyncio.run(run())


def results(rollout: Rollout) -> list[str]:
    """What tools answered, as the model saw it."""
    text = CODEC.decode(rollout.token_ids)
    return [part.split("\n</tool_response>")[0] for part in text.split("<tool_response>\n")[1:]]


class TestPython:
    def test_a_call_is_run_and_its_result_is_the_next_turns_prompt(self):
        rollout = make([f"I compute.\n{called('python', code='print(3 + 4)')}", "#### 7"])
        assert rollout.last_turn == "#### 7"
        assert results(rollout) == ["7"]
        sampled = [token for token, flag in zip(rollout.token_ids, rollout.loss_mask, strict=True) if flag]
        assert "tool_response" not in CODEC.decode(sampled)
        assert CODEC.decode(sampled).endswith("</tool_call><|im_end|>#### 7<|im_end|>")

    def test_the_tokens_are_those_of_the_chat_template(self):
        code = "3 + 4"
        rollout = make([called("python", code=code), "7"])
        calls = Message("assistant", "", tool_calls=(ToolCall("python", json.dumps({"code": code})),))
        prompt = CODEC.decode(rollout.token_ids)
        tools = prompt.split("<tools>\n")[1].split("\n</tools>")[0]
        whole = CODEC.conversation_ids(
            (*record().messages, calls, Message("tool", "7"), Message("assistant", "7")), tools=f"[{tools}]"
        )
        assert rollout.token_ids == whole[: len(rollout.token_ids)]

    @pytest.mark.parametrize(
        ("code", "result"),
        [
            ("x = 6\nx * 7", "42"),
            ("'a' + 'b'", "'ab'"),
            ("None", "(no output)"),
            ("x = 1", "(no output)"),
            ("import os; os.abort()", "Error: the program was ended by signal 6"),
        ],
    )
    def test_results(self, code: str, result: str):
        assert results(make([called("python", code=code), "done"])) == [result]

    def test_errors_are_shown(self):
        assert results(make([called("python", code="1 / 0"), "done"]))[0].endswith(
            "ZeroDivisionError: division by zero"
        )
        assert "SyntaxError" in results(make([called("python", code="1 +"), "done"]))[0]

    def test_a_program_that_takes_too_long(self):
        sandbox = {"timeout_seconds": 2.0, "allow_unisolated": True}
        rollout = make([called("python", code="while True: pass"), "done"], sandbox=sandbox)
        assert results(rollout) == ["Error: the program took too long and was ended"]

    def test_long_results_are_cut(self):
        rollout = make([called("python", code="print('x' * 1000)"), "done"], max_result_chars=100)
        assert results(rollout) == ["x" * 100 + "\n[900 more characters]"]

    def test_several_calls_in_one_turn(self):
        rollout = make([called("python", code="1") + "\n" + called("python", code="2"), "done"])
        assert results(rollout) == ["1", "2"]


class TestCallsThatGoWrong:
    @pytest.mark.parametrize(
        ("turn", "result"),
        [
            (called("java", code="1"), "Error: there is no tool 'java'; there are: python"),
            (called("python", program="1"), "Error: the tool 'python' needs the argument 'code', a text"),
            ('<tool_call>{"name": "python", "arguments": {"code": 1', "Error: the arguments are not JSON"),
            (
                '<tool_call>{"name": "python", "arguments": [1]}</tool_call>',
                "Error: the arguments must be a JSON object",
            ),
        ],
    )
    def test_the_model_is_told(self, turn: str, result: str):
        assert results(make([turn, "done"]))[0].startswith(result)

    def test_turns_are_limited(self):
        rollout = make([called("python", code="1")], max_turns=2)
        assert (len(rollout.turns), rollout.stop_reason) == (2, "length")
        assert rollout.loss_mask[-1] == 1

    def test_a_result_without_room_for_an_answer_ends_the_rollout(self):
        rollout = make(
            [called("python", code="print('x' * 900)"), "done"], sampling=replace(SAMPLING, max_new_tokens=900)
        )
        assert (len(rollout.turns), rollout.stop_reason) == (1, "length")

    def test_calls_in_thoughts_are_thoughts(self):
        assert read_calls(f"<think>{called('python', code='1')}</think>done", "hermes") == []
        assert len(read_calls(f"<think>so</think>{called('python', code='1')}", "hermes")) == 1

    def test_other_ways_to_write_calls(self):
        for parser, text in (
            ("llama3", '<|python_tag|>{"name": "add", "parameters": {"a": 1}}'),
            ("mistral", '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]'),
        ):
            (call,) = read_calls(text, parser, first_id=4)
            assert (call.name, json.loads(call.arguments), call.id) == ("add", {"a": 1}, "call00004")


class TestFunctions:
    def test_they_are_described_and_called(self, functions: Path):
        rollout = make(
            [called("add", a=3, b=4) + called("add", a=1) + called("shout", text="hé"), "done"],
            functions=(f"{functions}:add", f"{functions}:shout"),
            python=False,
        )
        assert results(rollout) == ["7", "2", '{"said": "HÉ"}']
        prompt = rollout.prompt
        assert '"description": "Add two whole numbers."' in prompt
        assert '"a": {"type": "integer"}' in prompt
        assert '"required": ["a"]' in prompt
        assert '"name": "python"' not in prompt

    @pytest.mark.parametrize(
        ("turn", "result"),
        [
            (called("add", a="many"), "Error: ValidationError: 1 validation error for add\na\n"),
            (called("add", a=1, c=2), "Error: ValidationError: 1 validation error for add\nc\n"),
            (called("fail", text="x"), "Error: KeyError: 'x'"),
            (called("crash"), "Error: the tool 'crash' ended its process with exit code 3"),
            (called("sleep"), "Error: the tool 'sleep' took longer than 1 s"),
        ],
    )
    def test_what_goes_wrong_in_one_is_told_to_the_model(self, functions: Path, turn: str, result: str):
        names = tuple(f"{functions}:{name}" for name in ("add", "fail", "crash", "sleep"))
        rollout = make([turn, called("add", a=1), "done"], functions=names, timeout_seconds=1.0)
        assert results(rollout)[0].startswith(result)
        assert results(rollout)[1] == "2"

    def test_rows_may_choose_and_describe_their_tools(self, functions: Path):
        schema = {"type": "function", "function": {"name": "add", "description": "Sum.", "parameters": {}}}
        one = replace(record(), tools=json.dumps([schema]))
        rollout = make([called("add", a=1, b=1), "done"], functions=(f"{functions}:add",), one=one)
        assert results(rollout) == ["2"]
        assert '"Sum."' in rollout.prompt
        assert "Add two" not in rollout.prompt

    def test_a_tool_of_a_row_that_nobody_has_is_told(self):
        one = replace(record(), tools='[{"type": "function", "function": {"name": "add"}}]')
        with pytest.raises(DataError, match=r"^rows\.jsonl:1: the row has the tool 'add'.*workflow\.functions"):
            make(["7"], one=one)

    @pytest.mark.parametrize(
        ("names", "error"),
        [
            (["nothing"], "has no function 'nothing'"),
            (["add", "add"], "two tools are named 'add'"),
            (["vague"], "no name"),
        ],
    )
    def test_functions_that_cannot_be_tools_are_told_at_the_start(self, functions: Path, names: list[str], error: str):
        with pytest.raises(ConfigError, match=error):
            make(["7"], functions=tuple(f"{functions}:{name}" for name in names))


class TestStart:
    def test_a_template_without_tools_is_refused(self):
        with pytest.raises(ModelError, match="no place for"):
            make(["7"], codec=tiny_codec())

    def test_a_template_that_shows_no_calls_needs_a_parser(self):
        codec = TextCodec(tiny_codec().tokenizer, read_template("qwen").replace("<tool_call>", "<call>"))
        with pytest.raises(ModelError, match=r"workflow\.tool_parser=NAME"):
            make(["7"], codec=codec)

    def test_no_tool_at_all_is_refused(self):
        with pytest.raises(ValidationError, match="there is no tool"):
            make(["7"], python=False)


class TestMath:
    def test_the_instruction_follows_the_question(self):
        rollout = make([r"\boxed{7}"], workflow="math")
        assert rollout.prompt.endswith(
            "What is 3 + 4?\n\nReason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        assert rollout.completion == r"\boxed{7}"

    def test_with_python(self):
        rollout = make([called("python", code="3 + 4"), r"\boxed{7}"], workflow="math", python=True)
        assert (results(rollout), rollout.last_turn) == (["7"], r"\boxed{7}")
