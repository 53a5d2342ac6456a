"""Numbers, durations and sizes as people read them."""

import math
from collections.abc import Iterable

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def format_number(value: float) -> str:
    """Four significant digits: `0.4213`, `12.35`, `1,234`, `1e-05`."""
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def format_seconds(seconds: float) -> str:
    """A duration: `0.8 s`, `42 s`, `3 min 05 s`, `2 h 04 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_bytes(num_bytes: float) -> str:
    """A size in decimal units: `512 B`, `1.2 GB`."""
    size = float(num_bytes)
    for unit in UNITS:
        if size < 999.95 or unit == UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("the last unit takes every size")


def listed(items: Iterable[object], most: int = 8) -> str:
    """Things by their text, each once: `a.jsonl:3, a.jsonl:7 and 12 more`."""
    texts = list(dict.fromkeys(str(item) for item in items))
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")
