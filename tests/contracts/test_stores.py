"""The stores that come with llmkit keep the contract that third parties test theirs with."""

from pathlib import Path

import pytest

from llmkit.testing.dataset import DatasetContract
from llmkit.testing.store import StoreContract


class TestJSONLines(StoreContract):
    name = "jsonl"


class TestParquet(StoreContract):
    name = "parquet"


class TestMemmap(StoreContract):
    name = "memmap"


class TestHDF5(StoreContract):
    name = "hdf5"

    @pytest.fixture(autouse=True)
    def _h5py(self) -> None:
        pytest.importorskip("h5py")


class TestTokens(DatasetContract):
    name = "tokens"

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join(f'{{"input_ids": [{number}, 7, 8]}}\n' for number in range(30)))
        type(self).options = {"path": str(path), "window": 5, "stride": 4}

    bad_options = ({"stride": 6}, {"window": 1}, {"store": "nobody"})
