"""What every inference engine promises: token ids in, token ids with log-probabilities and versions out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.engines.inference.contract import EngineContext, InferenceEngine
from llmkit.errors import EngineError
from llmkit.testing.front import FrontContract
from llmkit.testing.tiny import tiny_model
from llmkit.types import Completion, SamplingParams

DEADLINE_SECONDS = 120
HOLD_SECONDS = 0.05

Story = Callable[[InferenceEngine], Awaitable[None]]


class EngineContract(FrontContract):
    """Subclass it and set `name`; override `build` for an engine that needs more than a small random model.

    Attributes:
        prompt_ids: a prompt that the engine's model knows.
        sampling: how to draw; it has a seed.
        too_long: number of prompt tokens that cannot fit any context; None when the engine has no limit.
    """

    kind = "engines"
    prompt_ids: ClassVar[Sequence[int]] = tuple(range(1, 65))
    sampling: ClassVar[SamplingParams] = SamplingParams(max_new_tokens=8, seed=7)
    too_long: ClassVar[int | None] = None

    def build(self) -> InferenceEngine:
        """A fresh engine."""
        context = EngineContext(ModelConfig(path=tiny_model()), DeviceConfig.model_validate({"device": "cpu"}))
        return self.plugin().build(self.config(), context)

    def test_a_completion_has_a_logprob_and_a_version_for_each_token(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            completion = await engine.generate(self.prompt_ids, self.sampling)
            check_completion(completion, self.sampling)
            assert set(completion.versions) == {engine.version}

        self.run(story)

    def test_the_limit_ends_a_completion(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            sampling = replace(self.sampling, max_new_tokens=2)
            completion = await engine.generate(self.prompt_ids, sampling)
            check_completion(completion, sampling)
            assert len(completion.token_ids) <= 2

        self.run(story)

    def test_a_stop_token_ends_a_completion_and_is_part_of_it(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            greedy = replace(self.sampling, temperature=0.0)  # not every engine repeats what it draws by a seed
            first = (await engine.generate(self.prompt_ids, greedy)).token_ids[0]
            completion = await engine.generate(self.prompt_ids, replace(greedy, stop_token_ids=(first,)))
            assert completion.token_ids == [first]
            assert completion.stop_reason == "stop"

        self.run(story)

    def test_a_seed_repeats_the_draw_whatever_else_runs(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            alone = await engine.generate(self.prompt_ids, self.sampling)
            others = [replace(self.sampling, seed=seed) for seed in range(3)]
            together = await asyncio.gather(
                *(engine.generate(self.prompt_ids, sampling) for sampling in [self.sampling, *others])
            )
            assert together[0].token_ids == alone.token_ids
            for completion in together:
                check_completion(completion, self.sampling)

        self.run(story)

    def test_tokens_carry_the_version_of_the_weights_that_drew_them(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            await engine.load_weights(5)
            assert engine.version == 5
            completion = await engine.generate(self.prompt_ids, self.sampling)
            assert set(completion.versions) == {5}

        self.run(story)

    def test_a_cancelled_request_frees_the_engine(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            task = asyncio.create_task(_generate(engine, self.prompt_ids, self._long()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            check_completion(await engine.generate(self.prompt_ids, self.sampling), self.sampling)

        self.run(story)

    def test_a_pause_ends_what_runs_and_holds_what_comes(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            running = asyncio.create_task(_generate(engine, self.prompt_ids, self._long()))
            await asyncio.sleep(0)
            await engine.pause()
            held = asyncio.create_task(_generate(engine, self.prompt_ids, self.sampling))
            done, _ = await asyncio.wait({held}, timeout=HOLD_SECONDS)
            assert not done, "a request that came during the pause was served before `resume`"
            await engine.resume()
            check_completion(await held, self.sampling)
            check_completion(await running, self._long())

        self.run(story)

    def test_a_closed_engine_refuses_and_may_be_closed_again(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            await engine.close()
            await engine.close()
            with pytest.raises(EngineError):
                await engine.generate(self.prompt_ids, self.sampling)

        self.run(story)

    def test_closing_ends_what_runs(self) -> None:
        async def story(engine: InferenceEngine) -> None:
            running = asyncio.create_task(_generate(engine, self.prompt_ids, self._long()))
            await asyncio.sleep(0)
            await engine.close()
            ended = (await asyncio.gather(running, return_exceptions=True))[0]
            assert isinstance(ended, Completion | EngineError), f"it ended with {ended!r}"

        self.run(story)

    def test_a_prompt_that_leaves_no_room_is_refused(self) -> None:
        if self.too_long is None:
            pytest.skip("this engine says that it has no limit (`too_long`)")
        prompt_ids = [self.prompt_ids[0]] * self.too_long

        async def story(engine: InferenceEngine) -> None:
            with pytest.raises(EngineError):
                await engine.generate(prompt_ids, self.sampling)

        self.run(story)

    def run(self, story: Story) -> None:
        """Build an engine, tell the story, close the engine; nothing may hang."""

        async def whole() -> None:
            engine = self.build()
            try:
                await story(engine)
            finally:
                await engine.close()

        asyncio.run(asyncio.wait_for(whole(), DEADLINE_SECONDS))

    def _long(self) -> SamplingParams:
        return replace(self.sampling, max_new_tokens=len(self.prompt_ids))


def check_completion(completion: Completion, sampling: SamplingParams) -> None:
    """What holds for every completion."""
    count = len(completion.token_ids)
    assert len(completion.logprobs) == count
    assert len(completion.versions) == count
    assert count <= sampling.max_new_tokens
    assert all(isinstance(token, int) and token >= 0 for token in completion.token_ids)
    assert all(-1e9 < logprob <= 1e-6 for logprob in completion.logprobs), (
        "log-probabilities are finite and not above 0"
    )
    assert completion.stop_reason in ("stop", "length", "cancelled")
    if completion.stop_reason == "length":
        assert count == sampling.max_new_tokens


async def _generate(engine: InferenceEngine, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
    return await engine.generate(prompt_ids, sampling)
