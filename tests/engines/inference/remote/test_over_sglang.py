"""The engine over a real SGLang server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engines.inference.remote.real_engines import OverRealServers, real_fleet

from llmkit.engines.inference.remote.contract import Fleet

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sglang")


@pytest.fixture(scope="module")
def sglang(directory: Path) -> Iterator[Fleet]:
    with real_fleet("sglang", directory) as fleet:
        yield fleet


class TestOverSGLang(OverRealServers):
    name = "sglang"

    @pytest.fixture(autouse=True)
    def _servers(self, sglang: Fleet, directory: Path) -> None:
        type(self).fleet, type(self).directory = sglang, directory

    def test_a_seed_repeats_the_draw_whatever_else_runs(self) -> None:
        pytest.skip("SGLang repeats draws only with --enable-deterministic-inference, which has no CPU kernels")
