"""The page of a benchmark: every figure with its unit."""

from pathlib import Path
from typing import Any

from llmkit.bench.page import write_page

DOCUMENT = {
    "command": "bench data",
    "machine": {"cores": 2, "gemm_gflops": 99.07, "memory_gbps": 23.3, "foreign_load": 0.497},
    "results": [
        {"name": f"convert/{name}", "settings": {"rows": 3000, "contender": name, "file_bytes": 3_400_000}, **figures}
        for name, figures in {
            "ours": {"seconds": 0.0421, "peak_memory_bytes": 188_000_000, "flat": True, "losses": [1.0]},
            "<b>": {"seconds": 12.0, "time_to_first_token_seconds_p50": 0.5, "tokens_per_second": 1234.5},
        }.items()
    ],
    "ratios": {"<b>": {"convert_rows_per_second": 1.5}},
}


def draw(document: dict[str, Any], path: Path) -> None:
    path.write_bytes(b"picture")


def test_figures_stand_below_one_another_with_their_units(tmp_path: Path):
    write_page(DOCUMENT, tmp_path / "page.html", draw)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for words in (
        "cores 2, product of matrices, GFLOP/s 99.07, memory, GB/s 23.3, foreign load 49.7%",
        "<p>rows 3,000, file 3.4 MB</p>",
        "<th>ours</th><th>&lt;b&gt;</th>",
        "<td>seconds</td><td>42.1 ms</td><td>12.00 s</td>",
        "<td>peak memory</td><td>188.0 MB</td><td></td>",
        "<td>flat</td><td>yes</td><td></td>",
        "<td>time to first token seconds p50</td><td></td><td>0.50 s</td>",
        "<td>tokens per second</td><td></td><td>1,234",
        "&lt;b&gt;: convert rows per second 1.5x (ours over theirs)",
    ):
        assert words in page
    assert "losses" not in page
