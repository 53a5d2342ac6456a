"""What was found, as tables for people."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmkit.bench.results import Findings, Ratios, Result
from llmkit.formatting import format_bytes, format_number
from llmkit.terminal import stderr_console

Format = Callable[[Any], str]


def format_time(seconds: float) -> str:
    """`12.3 ms`, `0.41 s`."""
    return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def _yes_no(is_so: bool) -> str:
    return "yes" if is_so else "no"


COLUMNS: dict[str, dict[str, tuple[str, Format]]] = {
    "tokenize": {
        "rows/s": ("rows_per_second", format_number),
        "tokens/s": ("tokens_per_second", format_number),
        "±": ("spread", "{:.0%}".format),
    },
    "packing": {"time": ("seconds", format_time), "bins": ("num_bins", format_number)},
    "start": {
        "to the first batch": ("seconds", format_time),
        "imports": ("imports_seconds", format_time),
        "open": ("open_seconds", format_time),
        "batch": ("first_batch_seconds", format_time),
        "without cache": ("first_start_seconds", format_time),
    },
    "startup": {
        "seconds": ("seconds", format_time),
        "least": ("seconds_min", format_time),
        "±": ("spread", "{:.0%}".format),
    },
    "weights": {
        "an update": ("seconds", format_time),
        "±": ("spread", "{:.0%}".format),
        "the first": ("first_seconds", format_time),
        "weights": ("num_bytes", format_bytes),
        "servers' start": ("start_seconds", format_time),
    },
    "train": {
        "tokens/s": ("tokens_per_second", format_number),
        "by CPU time": ("tokens_per_cpu_second", format_number),
        "of GEMM": ("model_flops_share", "{:.0%}".format),
        "of memory": ("memory_traffic_share", "{:.0%}".format),
        "±": ("spread", "{:.0%}".format),
        "step": ("seconds", format_time),
        "generating": ("generation_seconds", format_time),
        "training": ("training_seconds", format_time),
        "peak": ("peak_memory_bytes", format_bytes),
        "losses differ": ("loss_difference", "{:.1e}".format),
    },
    "streaming": {
        "rows/s": ("rows_per_second", format_number),
        "peak": ("peak_memory_bytes", format_bytes),
        "first quarter": ("first_quarter_memory_bytes", format_bytes),
        "last quarter": ("last_quarter_memory_bytes", format_bytes),
        "flat": ("flat", _yes_no),
    },
    "checkpoint": {
        "time": ("seconds", format_time),
        "CPU time": ("cpu_seconds", format_time),
        "bytes/s": ("bytes_per_second", format_bytes),
        "of memory's speed": ("memory_bandwidth_share", "{:.0%}".format),
        "±": ("spread", "{:.0%}".format),
        "peak memory": ("peak_memory_bytes", format_bytes),
    },
    "convert": {
        "rows/s": ("rows_per_second", format_number),
        "by CPU time": ("rows_per_cpu_second", format_number),
        "±": ("spread", "{:.0%}".format),
        "peak": ("peak_memory_bytes", format_bytes),
        "of a quarter": ("quarter_peak_memory_bytes", format_bytes),
        "flat": ("flat", _yes_no),
    },
}
"""For each part, what its columns show and how."""


def show_part(part: str, found: Findings) -> None:
    """Print the results of one part, then how llmkit compares."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    columns = {
        heading: column
        for heading, column in COLUMNS[part].items()
        if any(one.metrics.get(column[0]) is not None for one in found.results)
    }
    for heading in columns:
        table.add_column(heading, justify="right")
    for one in found.results:
        table.add_row(one.name.partition("/")[2], *_cells(columns.values(), one))
    console = stderr_console()
    console.print(_title(part, found.results[0].settings), soft_wrap=True, markup=False)
    console.print(table)
    for line in compare_lines(found.ratios):
        console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print()


def compare_lines(ratios: Ratios) -> list[str]:
    """How llmkit compares with each peer: `datasets.map: encode_rows_per_second 4.1x`; ours over theirs."""
    return [
        f"{peer}: " + ", ".join(f"{metric} {format_number(value)}x" for metric, value in metrics.items())
        for peer, metrics in ratios.items()
    ]


def _cells(columns: Iterable[tuple[str, Format]], result: Result) -> list[str]:
    values = [(result.metrics.get(metric), show) for metric, show in columns]
    return ["unknown" if value is None else show(value) for value, show in values]


def _title(part: str, settings: Mapping[str, Any]) -> str:
    shown = (f"{key} {_setting(value)}" for key, value in settings.items())
    return f"{part}: {', '.join(shown)}"


def _setting(value: Any) -> str:
    return format_number(value) if isinstance(value, int | float) else str(value)
