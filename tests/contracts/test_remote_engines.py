"""The engine over HTTP keeps the contract of engines, in front of real servers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.serve.conftest import running

from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.engines.inference.contract import EngineContext, InferenceEngine
from llmkit.errors import EngineError
from llmkit.testing.engine import EngineContract
from llmkit.testing.tiny import tiny_model


@pytest.fixture(scope="module")
def echo_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    directory = tmp_path_factory.mktemp("echo")
    settings = ["--set", "engine.seconds_per_token=0.002", "--set", "engine.context_length=512"]
    arguments = ["--engine", "echo", "--model", tiny_model(), *settings]
    first, second = directory / "0", directory / "1"
    first.mkdir()
    second.mkdir()
    with running(first, arguments) as one, running(second, arguments) as two:
        yield [one.url, two.url]


@pytest.fixture(scope="module")
def native_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    directory: Path = tmp_path_factory.mktemp("native")
    with running(directory, ["--engine", "native", "--model", tiny_model(), "--set", "device.device=cpu"]) as server:
        yield [server.url]


class OverServers(EngineContract):
    name = "openai"
    too_long = 512
    urls: ClassVar[list[str]] = ["http://127.0.0.1:1"]

    def config(self) -> Any:
        return self.plugin().Config.model_validate({"urls": self.urls})

    def build(self) -> InferenceEngine:
        context = EngineContext(ModelConfig(path=tiny_model()), DeviceConfig.model_validate({"device": "cpu"}))
        return self.plugin().build(self.config(), context)

    def test_tokens_carry_the_version_of_the_weights_that_drew_them(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            with pytest.raises(EngineError, match="nothing brings them version 5"):
                await engine.load_weights(5)
            completion = await engine.generate(self.prompt_ids, self.sampling)
            assert set(completion.versions) == {0}

        self.run(story)


class TestOverEcho(OverServers):
    @pytest.fixture(autouse=True)
    def _servers(self, echo_servers: list[str]) -> None:
        type(self).urls = echo_servers


class TestOverNative(OverServers):
    @pytest.fixture(autouse=True)
    def _servers(self, native_servers: list[str]) -> None:
        type(self).urls = native_servers
