"""A condition on a row's columns, such as `len(answer) < 400 and lang == 'en'`: names, numbers and text, no code."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from llmkit.errors import ConfigError, DataError

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "len": len, "lower": str.lower, "upper": str.upper, "strip": str.strip, "startswith": str.startswith,
    "endswith": str.endswith, "int": int, "float": float, "str": str, "abs": abs,
}  # fmt: skip
OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda one, other: one in other, ast.NotIn: lambda one, other: one not in other,
    ast.Is: operator.is_, ast.IsNot: operator.is_not, ast.Add: operator.add, ast.Sub: operator.sub,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
"""Multiplication and powers are left out: of text and of large numbers they fill the memory."""
SIMPLE = (ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.Compare, ast.Name,
          ast.Load, ast.Constant, ast.Subscript, ast.List, ast.Tuple, ast.Call, *OPERATORS)  # fmt: skip


class Condition:
    """A condition that was read once and is asked of every row."""

    def __init__(self, text: str) -> None:
        """
        Raises:
            ConfigError: it is no expression, or more than comparisons of columns.
        """
        self._text = text
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ConfigError(f"--where {text!r}: is no expression: {error}") from None
        for node in ast.walk(tree):
            if not isinstance(node, SIMPLE):
                raise ConfigError(f"--where {text!r}: {type(node).__name__} is not allowed; compare columns")
            called = isinstance(node, ast.Call) and not (
                isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords
            )
            if called:
                raise ConfigError(f"--where {text!r}: only these can be called: {', '.join(FUNCTIONS)}")
        self._tree = tree.body

    def holds(self, row: Mapping[str, Any], place: object) -> bool:
        """Whether a row fulfils it.

        Raises:
            DataError: a column is not there or cannot be compared; names `place`.
        """
        try:
            return bool(_value(self._tree, row))
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            what = f"no column {error}; found {', '.join(row)}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{place}: --where {self._text!r} cannot be asked of this row: {what}") from None


def _value(node: ast.AST, row: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return row[node.id]
        case ast.List() | ast.Tuple():
            return [_value(item, row) for item in node.elts]
        case ast.Subscript():
            return _value(node.value, row)[_value(node.slice, row)]
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, row)
        case ast.UnaryOp():
            return -_value(node.operand, row)
        case ast.BinOp():
            return OPERATORS[type(node.op)](_value(node.left, row), _value(node.right, row))
        case ast.BoolOp(op=ast.And()):
            return all(_value(item, row) for item in node.values)
        case ast.BoolOp():
            return any(_value(item, row) for item in node.values)
        case ast.Compare():
            left = _value(node.left, row)
            for kind, item in zip(node.ops, node.comparators, strict=True):
                right = _value(item, row)
                if not OPERATORS[type(kind)](left, right):
                    return False
                left = right
            return True
        case ast.Call(func=ast.Name(id=name)):
            return FUNCTIONS[name](*(_value(item, row) for item in node.args))
    raise AssertionError(f"{type(node).__name__} is refused before")
