"""The engine over real vLLM servers."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
import torch
from tests.engines.inference.remote.real_engines import (
    NEAR,
    OverRealServers,
    expected,
    policy,
    real_fleet,
)

from llmkit.engines.inference.contract import InferenceEngine
from llmkit.engines.inference.remote.contract import Fleet
from llmkit.engines.inference.remote.engine import RemoteEngine
from llmkit.errors import RequestError
from llmkit.testing.tiny import tiny_codec
from llmkit.types import SamplingParams

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def vllm(directory: Path) -> Iterator[Fleet]:
    # The routes for pausing, which servers beside a trainer have; without them an engine leaves its requests instead.
    with real_fleet("vllm", directory, extra_env={"VLLM_SERVER_DEV_MODE": "1"}) as fleet:
        yield fleet


class TestOverVLLM(OverRealServers):
    name = "vllm"

    @pytest.fixture(autouse=True)
    def _servers(self, request: pytest.FixtureRequest, directory: Path) -> None:
        if "test_is_installed" not in request.node.name:
            type(self).fleet, type(self).directory = request.getfixturevalue("vllm"), directory

    def test_a_kind_of_logprobs_that_it_has_not_is_refused(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            temperature = 0.5
            kinds: tuple[Literal["raw", "scaled"], ...] = ("raw", "scaled")
            for kind in kinds:
                sampling = SamplingParams(max_new_tokens=16, temperature=temperature, logprob_kind=kind, seed=4)
                try:
                    completion = await engine.generate(self.prompt, sampling)
                except RequestError:
                    continue
                logits = expected(policy(self.directory), self.prompt, completion.token_ids)
                ours = (logits / temperature if kind == "scaled" else logits).log_softmax(-1)
                found = ours.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
                torch.testing.assert_close(torch.tensor(completion.logprobs), found, rtol=0, atol=NEAR)
                return
            pytest.fail("it gives neither")

        self.run(story)

    def test_it_is_found_out_what_they_are(self) -> None:
        async def story(engine: Any) -> None:
            assert engine._dialect.name == "vLLM"
            assert engine._dialect._logprobs == "processed", "as llmkit starts it"

        self.run(story)


@pytest.mark.slow
def test_with_one_of_two_servers_killed_in_mid_run_nothing_is_lost_or_doubled(directory: Path) -> None:
    with real_fleet("vllm", directory, dp=2, eager=True) as fleet:
        engine = build_over(fleet)
        prompts = [[index + 1, 7, 7, 9] for index in range(32)]
        sampling = SamplingParams(max_new_tokens=100, seed=5)

        async def story() -> list[Any]:
            tasks = [asyncio.ensure_future(engine.generate(prompt, sampling)) for prompt in prompts]
            while sum(task.done() for task in tasks) < 4:
                await asyncio.sleep(0.01)
            kill_server(fleet, 1)
            assert not all(task.done() for task in tasks), "too late to show anything"
            try:
                return await asyncio.gather(*tasks)
            finally:
                await engine.close()

        completions = asyncio.run(asyncio.wait_for(story(), 240))
        model = policy(directory)
        for prompt, completion in zip(prompts, completions, strict=True):
            assert len(completion.token_ids) == 100
            logprobs = expected(model, prompt, completion.token_ids).log_softmax(-1)
            found = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), found, rtol=0, atol=NEAR)
        assert engine.stats().num_generated_tokens == 100 * len(prompts)


def build_over(fleet: Fleet) -> RemoteEngine:
    """An engine over servers that llmkit started, which closes them."""
    from llmkit_vllm.dialect import VLLMDialect

    return RemoteEngine(fleet, VLLMDialect("processed"), tokenizer=tiny_codec().tokenizer)


def kill_server(fleet: Fleet, index: int) -> None:
    """Kill the process that listens at a server's address."""
    port = int(fleet.servers[index].url.rpartition(":")[2])
    for process in psutil.process_iter():
        try:
            places = process.net_connections(kind="tcp")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(place.status == psutil.CONN_LISTEN and place.laddr.port == port for place in places):
            os.kill(process.pid, signal.SIGKILL)
            return
    raise AssertionError(f"nobody listens on port {port}")
