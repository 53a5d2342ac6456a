"""Real vLLM and SGLang servers of one small model, and what is asked of both."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.engines.inference.remote.conftest import all_of, ids_of
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from llmkit import plugins
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.engines.inference.contract import EngineContext, GenerationRequest, InferenceEngine
from llmkit.engines.inference.remote.contract import Fleet
from llmkit.engines.inference.remote.engine import RemoteEngine
from llmkit.engines.servers.environments import remembered
from llmkit.engines.servers.opening import open_fleet
from llmkit.errors import EngineError
from llmkit.testing.engine import EngineContract, check_completion
from llmkit.testing.tiny import tiny_codec
from llmkit.types import Completion, SamplingParams, Structure

CONTEXT = 512
NEAR = 2e-3
"""Nats that float32 in another order of arithmetic may differ by."""


@cache
def policy(directory: Path) -> PreTrainedModel:
    """The model that the servers have, saved for them; their kernels want heads of 32 at least."""
    config = Qwen3Config(
        vocab_size=tiny_codec().num_ids,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config)
    model.save_pretrained(directory)
    tiny_codec().tokenizer.save_pretrained(directory)
    return model.eval()


@contextmanager
def real_fleet(engine: str, directory: Path, **settings: Any) -> Iterator[Fleet]:
    """Servers of an engine in the environment that `llmkit engines install` made, or a skipped test."""
    if remembered(engine) is None:
        pytest.skip(f"no environment of {engine}: `make test-engines` makes it")
    policy(directory)
    front = plugins.load("engines", engine)
    config = front.Config.model_validate(
        {"served_name": "m", "max_model_len": CONTEXT, "cache_memory_gb": 0.25, "log_dir": str(directory), **settings}
    )
    fleet = open_fleet(front.PROGRAM, config, context_of(directory))
    try:
        yield fleet
    finally:
        fleet.close()


def context_of(directory: Path) -> EngineContext:
    """The model in float32, whose arithmetic can be compared."""
    model = ModelConfig.model_validate({"path": str(directory), "dtype": "float32"})
    device = DeviceConfig.model_validate({"device": "cpu"})
    return EngineContext(model, device, tokenizer=tiny_codec().tokenizer)


def expected(model: PreTrainedModel, prompt: list[int], token_ids: list[int]) -> torch.Tensor:
    """[N, V] logits that the policy has before each drawn token."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + token_ids])).logits[0]
    return logits[len(prompt) - 1 : -1]


class OverRealServers(EngineContract):
    """The contract of engines, and what real servers alone can show. Subclasses have a fixture that sets `fleet`."""

    fleet: ClassVar[Fleet]
    directory: ClassVar[Path]
    too_long = CONTEXT
    prompt: ClassVar[list[int]] = list(range(1, 65))

    def build(self) -> InferenceEngine:
        # The engine `openai` finds out what they are; the one of their plugin would start servers for each test.
        front = plugins.load("engines", "openai")
        config = front.Config.model_validate({"urls": [server.url for server in self.fleet.servers]})
        return front.build(config, context_of(self.directory))

    def test_tokens_carry_the_version_of_the_weights_that_drew_them(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            with pytest.raises(EngineError, match="nothing brings them version 5"):
                await engine.load_weights(5)
            completion = await engine.generate(self.prompt_ids, self.sampling)
            assert set(completion.versions) == {0}

        self.run(story)

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_the_logprobs_are_those_of_the_model(self, temperature: float) -> None:
        async def story(engine: InferenceEngine) -> None:
            sampling = SamplingParams(max_new_tokens=32, temperature=temperature, seed=3)
            completion = await engine.generate(self.prompt, sampling)
            logprobs = expected(policy(self.directory), self.prompt, completion.token_ids).log_softmax(-1)
            ids = torch.tensor(completion.token_ids)
            ours = logprobs.gather(1, ids[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), ours, rtol=0, atol=NEAR)
            if temperature == 0:
                assert (logprobs.max(1).values - ours).max() < NEAR

        self.run(story)

    def test_a_prompt_and_the_likeliest_tokens_are_scored_as_the_model_does(self) -> None:
        async def story(engine: Any) -> None:
            sampling = SamplingParams(max_new_tokens=2, num_top_logprobs=3, prompt_logprobs=True, seed=1)
            deltas = await all_of(engine.stream(GenerationRequest(self.prompt, sampling)))
            found = deltas[0].prompt_scores
            ids = ids_of(deltas)
            logprobs = expected(policy(self.directory), self.prompt[:1], self.prompt[1:] + ids).log_softmax(-1)
            assert found[0].logprob is None
            assert len(found) == len(self.prompt)
            scores = [*found[1:], *(score for delta in deltas for score in delta.scores)]
            for score, row, token in zip(scores, logprobs, self.prompt[1:] + ids, strict=True):
                assert score.logprob == pytest.approx(row[token].item(), abs=NEAR)
                values, places = row.topk(3)
                assert [one for one, _ in score.top] == places.tolist()
                assert [one for _, one in score.top] == pytest.approx(values.tolist(), abs=NEAR)

        self.run(story)

    def test_completions_of_one_prompt_differ_and_greedy_ones_do_not(self) -> None:
        async def story(engine: Any) -> None:
            for temperature, num_kinds in ((1.0, 3), (0.0, 1)):
                sampling = SamplingParams(max_new_tokens=12, temperature=temperature)
                deltas = await all_of(engine.stream(GenerationRequest(self.prompt, sampling, num_completions=3)))
                drawn = [tuple(ids_of([delta for delta in deltas if delta.index == index])) for index in range(3)]
                assert len(set(drawn)) == num_kinds
                assert {len(ids) for ids in drawn} == {12}

        self.run(story)

    def test_a_stop_string_ends_text_and_tokens(self) -> None:
        async def story(engine: Any) -> None:
            greedy = SamplingParams(max_new_tokens=16, temperature=0.0)
            whole = await all_of(engine.stream(GenerationRequest(self.prompt, greedy)))
            text = "".join(delta.text for delta in whole)
            stop = text[5:8]
            place = text.index(stop)
            sampling = SamplingParams(max_new_tokens=16, temperature=0.0, stop=(stop,))
            deltas = await all_of(engine.stream(GenerationRequest(self.prompt, sampling)))
            assert "".join(delta.text for delta in deltas) == text[:place]
            assert (deltas[-1].stop_reason, deltas[-1].stop) == ("stop", stop)
            assert ids_of(deltas) == ids_of(whole)[: len(ids_of(deltas))]

        self.run(story)

    def test_a_structure_is_kept(self) -> None:
        async def story(engine: Any) -> None:
            structure = Structure("choice", '["yes", "no"]')
            sampling = SamplingParams(max_new_tokens=16, seed=1, structure=structure, logprob_kind="any")
            deltas = await all_of(engine.stream(GenerationRequest(self.prompt, sampling)))
            assert "".join(delta.text for delta in deltas) in ("yes", "no")
            assert deltas[-1].stop_reason == "stop"

        self.run(story)

    @pytest.mark.parametrize("whole", [True, False])
    def test_a_request_that_is_left_is_freed_on_the_server(self, whole: bool) -> None:
        async def story(engine: Any) -> None:
            assert isinstance(engine, RemoteEngine)
            sampling = SamplingParams(max_new_tokens=440)
            request = GenerationRequest(self.prompt, sampling)
            tasks = [
                asyncio.ensure_future(
                    engine.generate(self.prompt, sampling) if whole else all_of(engine.stream(request))
                )
                for _ in range(8)
            ]
            member = engine._members.all[0]

            async def running() -> int:
                return (await engine._dialect.stats(member.link)).num_running

            async with asyncio.timeout(60):
                while await running() < 8:
                    assert not any(task.done() for task in tasks), "they ended before they were left"
            for task in tasks:
                task.cancel()
            async with asyncio.timeout(60):
                while await running():
                    await asyncio.sleep(0.05)
            assert all(task.cancelled() for task in await _settled(tasks))

        self.run(story)

    @pytest.mark.parametrize("whole", [True, False])
    def test_a_pause_gives_what_was_drawn(self, whole: bool) -> None:
        async def story(engine: Any) -> None:
            sampling = SamplingParams(max_new_tokens=440)
            request = GenerationRequest(self.prompt, sampling)
            task = asyncio.ensure_future(
                engine.generate(self.prompt, sampling) if whole else all_of(engine.stream(request))
            )
            await asyncio.sleep(0.3)
            await engine.pause()
            ended = await task
            if isinstance(ended, Completion):
                check_completion(ended, sampling)
                assert ended.stop_reason == "cancelled"
            else:
                assert ended[-1].stop_reason == "cancelled"
            await engine.resume()
            check_completion(await engine.generate(self.prompt, self.sampling), self.sampling)

        self.run(story)

    def test_what_a_pause_holds_goes_on_after_it(self) -> None:
        async def story(engine: Any) -> None:
            sampling = SamplingParams(max_new_tokens=200)
            task = asyncio.ensure_future(engine.generate(self.prompt, sampling))
            await asyncio.sleep(0.2)
            await engine.pause("keep")
            await asyncio.sleep(0.5)
            await engine.resume()
            completion = await task
            check_completion(completion, sampling)
            assert completion.stop_reason == "length"

        self.run(story)


async def _settled(tasks: Sequence["asyncio.Future[Any]"]) -> Sequence["asyncio.Future[Any]"]:
    await asyncio.gather(*tasks, return_exceptions=True)
    return tasks
