"""Text to value and back under YAML's core schema, without the traps of YAML 1.1.

`1e-4` is a number, `no`, `on` and `2024-01-01` are text, `012` is twelve (`0o12` is ten) and `1_000` is text.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

NULLS = ("null", "Null", "NULL", "~", "")
TRUE = ("true", "True", "TRUE")
FALSE = ("false", "False", "FALSE")
INTEGER = re.compile(r"[-+]?[0-9]+")
OCTAL = re.compile(r"0o[0-7]+")
HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
INFINITY = re.compile(r"([-+]?)\.(inf|Inf|INF)")
NOT_A_NUMBER = (".nan", ".NaN", ".NAN")
LONGEST_INTEGER = 4000  # digits; Python refuses to read more than 4300
SAFE_TEXT = re.compile(r"[A-Za-z_./][A-Za-z0-9_./@+-]*(:[A-Za-z0-9_./@+-]+)*")
OLD_BOOLEANS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}  # to readers of YAML 1.1, in any case


def read_scalar(text: str) -> str | int | float | bool | None:
    """The value of a plain (unquoted) scalar."""
    if text in NULLS:
        return None
    if text in TRUE or text in FALSE:
        return text in TRUE
    if OCTAL.fullmatch(text) or HEXADECIMAL.fullmatch(text):
        return int(text, 0)
    if INTEGER.fullmatch(text):
        return int(text) if len(text) < LONGEST_INTEGER else text
    if FLOAT.fullmatch(text):
        return float(text)
    if infinity := INFINITY.fullmatch(text):
        return float(f"{infinity[1]}inf")
    return math.nan if text in NOT_A_NUMBER else text


def write_scalar(value: Any) -> str:
    """One line of YAML that `read_scalar` (or any YAML reader) turns back into the value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _write_float(value)
    text = str(value)
    if SAFE_TEXT.fullmatch(text) and text.lower() not in OLD_BOOLEANS and isinstance(read_scalar(text), str):
        return text
    return _quote(text)


def write_flow(value: Any) -> str:
    """Any value on one line: scalars as they are, lists and sections in brackets."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{write_scalar(str(key))}: {write_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(write_flow(item) for item in value) + "]"
    return write_scalar(value)


def _write_float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    digits, exponent, power = repr(value).partition("e")
    if exponent and "." not in digits:
        digits += ".0"  # without it, readers of YAML 1.1 take 1e-05 for text
    return digits + exponent + power


def _quote(text: str) -> str:
    """Double quotes; whatever is not printable is escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(character if character.isprintable() else _escape(character) for character in quoted)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
