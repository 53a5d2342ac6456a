"""Answers divided while they come: the same pieces however the text is cut."""

from collections.abc import Callable

import pytest

from llmkit.data.chat.parsing.pieces import Parser, PlainText
from llmkit.data.chat.parsing.reasoning import Thinking
from llmkit.data.chat.parsing.tools import Forced, Hermes, Llama3, Mistral, find_parser

CASES: list[tuple[Callable[[], Parser], str, tuple[str, str, list[tuple[str, str]]]]] = [
    (
        Hermes,
        'Hi.\n<tool_call>\n{"name": "f", "arguments": {"a": "}\\"<", "b": [1, {"c": 2}]}}\n</tool_call>\n'
        '<tool_call>\n{"arguments": {"x": 1}, "name": "g"}\n</tool_call>',
        ("Hi.\n", "", [("f", '{"a": "}\\"<", "b": [1, {"c": 2}]}'), ("g", '{"x": 1}')]),
    ),
    (Hermes, '<tool_call>{"name": "f"}</tool_call> Done.', ("Done.", "", [("f", "{}")])),
    (Hermes, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', ("", "", [("f", '{"a": 1}')])),
    (Hermes, '<tool_call>{"name": "f", "arguments": {"a', ("", "", [("f", '{"a')])),
    (Hermes, "a <tool_call>nonsense</tool_call> b", ("a <tool_call>nonsense</tool_call> b", "", [])),
    (Hermes, '<tool_call>{"nam', ('<tool_call>{"nam', "", [])),
    (Hermes, "1 < 2 <tool", ("1 < 2 <tool", "", [])),
    (
        Llama3,
        '<|python_tag|>{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
        ("", "", [("f", '{"a": 1}'), ("g", "{}")]),
    ),
    (Llama3, '{"answer": 42} yes', ('{"answer": 42} yes', "", [])),
    (Llama3, "Hello {", ("Hello {", "", [])),
    (
        Mistral,
        'Well [TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
        ("Well ", "", [("f", '{"a": 1}'), ("g", "{}")]),
    ),
    (
        Mistral,
        '[TOOL_CALLS]f{"a": "}"}[TOOL_CALLS]g[ARGS]{"b": 2}',
        ("", "", [("f", '{"a": "}"}'), ("g", '{"b": 2}')]),
    ),
    (Mistral, "[no call]", ("[no call]", "", [])),
    (
        Forced,
        '[{"name": "f", "parameters": {"a": 1}}, {"name": "g", "parameters": {"b": [2]}}]',
        ("", "", [("f", '{"a": 1}'), ("g", '{"b": [2]}')]),
    ),
    (
        lambda: Thinking(Hermes(), begun=False),
        '<think>\nhm </thi\n</think>\n\nYes. <tool_call>{"name": "f", "arguments": {}}</tool_call>',
        ("Yes. ", "hm </thi\n", [("f", "{}")]),
    ),
    (lambda: Thinking(PlainText(), begun=True), "hm</think>\nYes.", ("Yes.", "hm", [])),
    (lambda: Thinking(PlainText(), begun=False), "Yes <think>", ("Yes <think>", "", [])),
    (lambda: Thinking(PlainText(), begun=False), "<thi", ("<thi", "", [])),
    (lambda: Thinking(PlainText(), begun=True), "cut off", ("", "cut off", [])),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("make", "text", "expected"), CASES, ids=range(len(CASES)))
def test_pieces_do_not_depend_on_the_cuts(make, text, expected, size):
    parser = make()
    content = reasoning = ""
    calls: dict[int, tuple[str, str]] = {}
    for piece in (*(parser.push(text[start : start + size]) for start in range(0, len(text), size)), parser.finish()):
        content += piece.content
        reasoning += piece.reasoning
        for call in piece.calls:
            name, arguments = calls.get(call.index, ("", ""))
            calls[call.index] = (name + (call.name or ""), arguments + call.arguments)
    assert (content, reasoning, [calls[index] for index in sorted(calls)]) == expected


def test_the_chat_template_tells_how_calls_are_written():
    assert find_parser("auto", ("... <tool_call> ...",)) == "hermes"
    assert find_parser("auto", ("... [TOOL_CALLS] ...",)) == "mistral"
    assert find_parser("auto", ("plain",)) is None
    assert find_parser("none", ("<tool_call>",)) is None
    assert find_parser("llama3", ()) == "llama3"
