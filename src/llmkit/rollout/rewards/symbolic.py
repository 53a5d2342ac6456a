"""Comparison of formulas with the optional package math-verify."""

import logging
import threading
from importlib import import_module
from types import ModuleType

from llmkit.errors import PluginError


def load_math_verify() -> ModuleType:
    """The package.

    Raises:
        PluginError: it is not installed.
    """
    # Without a deadline of its own it says so at each first use; ours are those of the children.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    try:
        return import_module("math_verify")
    except ModuleNotFoundError:
        raise PluginError("This reward needs math-verify: pip install 'llmkit[math]'") from None


def same_formula(answer: str, reference: str, timeout_seconds: int | None) -> bool:
    """Whether two answers are the same formula, number or set.

    An answer that cannot be parsed or compared within the deadline is not the same. The deadlines rest on signals, so
    they hold in the main thread only; in another thread there are none.

    Args:
        answer: one of them.
        reference: the other.
        timeout_seconds: for each step; None has no deadline.
    Raises:
        PluginError: math-verify is not installed.
    """
    math_verify = load_math_verify()
    deadline = timeout_seconds if threading.current_thread() is threading.main_thread() else None
    parsed = [math_verify.parse(_as_latex(text), parsing_timeout=deadline) for text in (reference, answer)]
    return bool(math_verify.verify(*parsed, timeout_seconds=deadline))


def _as_latex(text: str) -> str:
    """The answer as LaTeX that stands alone, which is what math-verify looks for first."""
    return f"${text.strip().strip('$')}$"
