"""Entries of a `dataset_info.json` keep the contract of data sets."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llmkit.testing.dataset import DatasetContract

ROWS = [{"ask": f"{n}+1?", "tell": str(n + 1)} for n in range(5)]
INFO = {
    "sums": {"file_name": "sums.json", "columns": {"prompt": "ask", "response": "tell"}, "num_samples": 12},
    "nowhere": {"columns": {"prompt": "ask"}},
}


class TestLlamaFactory(DatasetContract):
    name = "llamafactory"
    bad_options: ClassVar[tuple[dict[str, Any], ...]] = ({"dataset": "sum"}, {"dataset": "nowhere"}, {"limit": 0})

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        (tmp_path / "sums.json").write_text(json.dumps(ROWS))
        (tmp_path / "dataset_info.json").write_text(json.dumps(INFO))
        self.options = {"path": str(tmp_path), "dataset": "sums"}  # type: ignore[misc] - of this test's own directory
