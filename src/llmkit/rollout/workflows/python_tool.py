"""The tool `python`: what it is called with and what it shows."""

import ast
from typing import Any

PYTHON = "python"
PYTHON_SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": PYTHON,
        "description": "Run a Python program and see what it prints. The value of a last expression is shown too. "
        "Nothing is kept between calls, and there is no network.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The program."}},
            "required": ["code"],
        },
    },
}


def with_last_value(code: str) -> str:
    """The program, which prints the value of its last expression as an interactive Python does."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code  # running it shows the error at its place
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        return code
    shown = ast.parse("__import__('sys').displayhook(None)").body[0]
    assert isinstance(shown, ast.Expr)
    assert isinstance(shown.value, ast.Call)
    shown.value.args = [last.value]
    tree.body[-1] = ast.copy_location(shown, last)
    return ast.unparse(ast.fix_missing_locations(tree))
