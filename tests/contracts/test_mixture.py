"""The data set `mixture` keeps the contracts of data sets and streams, whatever its rules."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from llmkit.config.section import PluginSection
from llmkit.config.shape import plugin_model
from llmkit.data.contract import Stream
from llmkit.testing.dataset import DatasetContract, StreamContract


def section(kind: str, name: str, **options: Any) -> PluginSection:
    """A plugin's section, as the resolver makes it."""
    return plugin_model(kind, name)(name=name, **options)


AUTO = section("formatters", "auto")
SOURCES = [
    {"dataset": section("datasets", "arithmetic", size=9), "formatter": AUTO, "weight": 2.0},
    {"dataset": section("datasets", "arithmetic", size=4, seed=1), "formatter": AUTO, "limit": 3},
]
NESTED = {"dataset": section("datasets", "mixture", sources=SOURCES, strategy="interleave"), "formatter": AUTO}


class TestMixture(DatasetContract):
    name = "mixture"
    options: ClassVar[dict[str, Any]] = {"sources": [*SOURCES, NESTED]}
    bad_options = (
        {"sources": []},
        {"sources": [{**SOURCES[0], "weight": 0}]},
        {"sources": [{**NESTED, "limit": 2}]},
        {"stopping": "never"},
    )


class OfMixture(StreamContract):
    """A mixture as a stream gives the rows that it gives as a data set."""

    name = "mixture"

    @pytest.fixture(autouse=True)
    def _torn(self, tmp_path: Path) -> None:
        (tmp_path / "torn.jsonl").write_text('{"text": "one"}\n{"text": \n{"text": "three"}\n')
        self.torn = section("datasets", "files", path=str(tmp_path / "torn.jsonl"))

    def faulty(self) -> Stream:
        plugin = self.plugin()
        sources = [*SOURCES, {"dataset": self.torn, "formatter": section("formatters", "text")}]
        # Every row once: a faulty row that repeats is faulty again.
        return plugin.build(plugin.Config(**{**self.options, "sources": sources, "stopping": "without_replacement"}))

    def dataset(self) -> Any:
        plugin = self.plugin()
        # Without a word about lengths all rows count alike.
        options = {**self.options, "streaming": False, "weights_by": "rows"}
        data = plugin.build(plugin.Config(**options))
        return [data[int(row)] for row in data.order(0, 0, False)]


class TestMixtureStream(OfMixture):
    options: ClassVar[dict[str, Any]] = {"sources": [*SOURCES, NESTED], "streaming": True}


@pytest.mark.parametrize("stopping", ["first_exhausted", "all_exhausted", "without_replacement"])
@pytest.mark.parametrize("weights_by", ["rows", "tokens"])
class TestInterleavedStream(OfMixture):
    @pytest.fixture(autouse=True)
    def _rules(self, stopping: str, weights_by: str) -> None:
        rules = {"strategy": "interleave", "stopping": stopping, "weights_by": weights_by}
        self.options = {"sources": [*SOURCES, NESTED], "streaming": True, **rules}  # type: ignore[misc]
