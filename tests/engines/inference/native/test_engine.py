"""What the engine does with requests that come, wait, share, stop and go."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import torch

from llmkit.engines.inference.contract import Delta, GenerationRequest, ServingEngine
from llmkit.errors import EngineBusyError, EngineError, RequestError
from llmkit.testing.tiny import tiny_codec
from llmkit.types import SamplingParams

from .tiny import PACKED, engine_of, make_model, prompts

GREEDY = SamplingParams(max_new_tokens=8, temperature=0)
DEADLINE_SECONDS = 60
Story = Callable[[ServingEngine], Awaitable[None]]


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(PACKED["llama"])


def tell(model: Any, story: Story, tokenizer: Any = None, **config: Any) -> None:
    """Tell a story of an engine; afterwards nothing is left of it."""

    async def whole() -> None:
        engine = engine_of(model, tokenizer, **config)
        try:
            await story(engine)
            while engine.stats().num_running + engine.stats().num_waiting:
                await asyncio.sleep(0.001)
            assert engine.stats().cache_use == 0
        finally:
            await engine.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def limited() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await whole()

    asyncio.run(limited())


async def collect(engine: ServingEngine, request: GenerationRequest) -> dict[int, list[Delta]]:
    """All deltas of a request, by completion."""
    found: dict[int, list[Delta]] = {}
    async for delta in engine.stream(request):
        found.setdefault(delta.index, []).append(delta)
    return found


def tokens_of(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


def test_a_stream_gives_each_token_as_it_comes_and_ends_with_a_reason(model: Any):
    (prompt,) = prompts(20)

    async def story(engine: ServingEngine) -> None:
        deltas = (await collect(engine, GenerationRequest(prompt, GREEDY)))[0]
        whole = await engine.generate(prompt, GREEDY)
        assert [len(delta.token_ids) for delta in deltas] == [1] * 8
        assert tokens_of(deltas) == whole.token_ids
        assert [score.logprob for delta in deltas for score in delta.scores] == pytest.approx(whole.logprobs, abs=1e-5)
        assert [delta.stop_reason for delta in deltas] == [None] * 7 + ["length"]

    tell(model, story)


def test_completions_of_a_group_compute_the_prompt_once_and_draw_as_if_alone(model: Any):
    (prompt,) = prompts(40)
    sampling = SamplingParams(max_new_tokens=12, seed=5)

    async def story(engine: ServingEngine) -> None:
        group = await collect(engine, GenerationRequest(prompt, sampling, num_completions=4))
        for index, deltas in group.items():
            alone = await engine.generate(prompt, SamplingParams(max_new_tokens=12, seed=5 + index))
            assert tokens_of(deltas) == alone.token_ids
        assert len({tuple(tokens_of(deltas)) for deltas in group.values()}) > 1

    tell(model, story, prefix_cache=False)


def test_the_same_prompt_again_comes_from_the_cache_until_the_weights_change(model: Any):
    (prompt,) = prompts(50)

    async def cached(engine: ServingEngine, **terms: Any) -> int | None:
        return (await collect(engine, GenerationRequest(prompt, GREEDY, **terms)))[0][0].num_cached_tokens

    async def story(engine: ServingEngine) -> None:
        assert await cached(engine) == 0
        assert await cached(engine) == 48
        assert await cached(engine, cache_salt="other") == 0
        await engine.load_weights(0)
        assert await cached(engine) == 0
        assert engine.stats().num_cached_tokens == 48

    tell(model, story)


def test_new_weights_never_meet_an_old_cache():
    changing = make_model(PACKED["qwen3"])
    (prompt,) = prompts(50)

    async def story(engine: ServingEngine) -> None:
        await engine.generate(prompt, GREEDY)
        with torch.no_grad():
            changing.model.layers[0].self_attn.v_proj.weight.mul_(-1)
        await engine.load_weights(1)
        after = await engine.generate(prompt, GREEDY)
        expected = changing.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None)
        assert after.token_ids == expected[0, 50:].tolist()
        assert set(after.versions) == {1}

    tell(changing, story)


@pytest.mark.parametrize("update", ["recompute", "keep"])
def test_a_completion_that_was_kept_goes_on_with_new_weights_and_says_where(model: Any, update: str):
    (prompt,) = prompts(20)
    sampling = SamplingParams(max_new_tokens=60, temperature=0)

    async def story(engine: ServingEngine) -> None:
        running = engine.stream(GenerationRequest(prompt, sampling))
        deltas = [await anext(running)]
        await engine.pause("keep")
        await engine.load_weights(3)
        await engine.resume()
        deltas += [delta async for delta in running]
        versions = [version for delta in deltas for version in delta.versions]
        assert len(versions) == 60
        assert set(versions) == {0, 3}
        assert versions == sorted(versions)
        assert tokens_of(deltas) == (await engine.generate(prompt, sampling)).token_ids

    tell(model, story, weight_update=update)


def test_a_pause_that_waits_lets_running_ones_end_and_holds_new_ones(model: Any):
    first, second = prompts(20, 21)

    async def story(engine: ServingEngine) -> None:
        running = engine.stream(GenerationRequest(first, GREEDY))
        deltas = [await anext(running)]
        await engine.pause("wait")
        assert engine.stats().num_running == 0
        deltas += [delta async for delta in running]
        assert deltas[-1].stop_reason == "length"
        held = asyncio.create_task(collect(engine, GenerationRequest(second, GREEDY)))
        done, _ = await asyncio.wait({held}, timeout=0.05)
        assert not done
        await engine.resume()
        assert len(tokens_of((await held)[0])) == 8

    tell(model, story)


def test_a_deadline_ends_completions_as_they_are_even_while_paused(model: Any):
    (prompt,) = prompts(20)
    long = SamplingParams(max_new_tokens=230)

    async def story(engine: ServingEngine) -> None:
        await engine.pause()
        (deltas,) = (await collect(engine, GenerationRequest(prompt, long, timeout_seconds=0.05))).values()
        assert [delta.stop_reason for delta in deltas] == ["cancelled"]
        await engine.resume()

    tell(model, story)


def test_a_full_queue_refuses(model: Any):
    (prompt,) = prompts(20)

    async def story(engine: ServingEngine) -> None:
        await engine.pause()
        held = asyncio.create_task(collect(engine, GenerationRequest(prompt, GREEDY, num_completions=2)))
        await asyncio.sleep(0.05)
        with pytest.raises(EngineBusyError, match="max_waiting=2"):
            await anext(engine.stream(GenerationRequest(prompt, GREEDY)))
        await engine.resume()
        await held

    tell(model, story, max_waiting=2)


def test_generate_is_never_refused_however_many_wait(model: Any):
    async def story(engine: ServingEngine) -> None:
        made = await asyncio.gather(*(engine.generate(prompt, GREEDY) for prompt in prompts(*range(5, 25))))
        assert [completion.stop_reason for completion in made] == ["length"] * 20

    tell(model, story, max_waiting=1, max_batch_size=2)


def test_of_64_clients_everyone_hears_in_the_order_in_which_they_came(model: Any):
    rules = random.Random(5)
    lengths = [rules.choice([3, 20, 70, 200]) for _ in range(64)]
    heard: list[int] = []

    async def client(engine: ServingEngine, number: int, prompt: list[int]) -> None:
        sampling = SamplingParams(max_new_tokens=rules.randint(1, 12), temperature=0)
        async for delta in engine.stream(GenerationRequest(prompt, sampling)):
            if delta.token_ids and number not in heard:
                heard.append(number)

    async def story(engine: ServingEngine) -> None:
        await asyncio.gather(*(client(engine, number, ids) for number, ids in enumerate(prompts(*lengths))))
        # Eight run at once and prompts go through in parts: the short ones beside a long one are still not before it.
        assert heard == list(range(64))

    tell(model, story, max_batch_size=8, max_step_tokens=32, num_blocks=80)


def test_stop_strings_end_the_text_before_them_and_special_tokens_are_no_text(model: Any):
    tokenizer = tiny_codec().tokenizer
    (prompt,) = prompts(20, vocabulary=90)

    async def story(engine: ServingEngine) -> None:
        sampling = SamplingParams(max_new_tokens=40, seed=3, allowed_token_ids=tuple(range(32, 90)))
        whole = (await collect(engine, GenerationRequest(prompt, sampling)))[0]
        text = "".join(delta.text for delta in whole)
        assert text == tokenizer.decode(tokens_of(whole), skip_special_tokens=True)
        stop = text[10:13]
        stopped = SamplingParams(max_new_tokens=40, seed=3, allowed_token_ids=tuple(range(32, 90)), stop=(stop,))
        deltas = (await collect(engine, GenerationRequest(prompt, stopped)))[0]
        assert "".join(delta.text for delta in deltas) == text[: text.index(stop)]
        assert (deltas[-1].stop_reason, deltas[-1].stop) == ("stop", stop)
        assert tokens_of(deltas) == tokens_of(whole)[: text.index(stop) + 3]
        assert (await engine.generate(prompt, stopped)).stop_reason == "stop"

    tell(model, story, tokenizer)


def test_prompt_logprobs_are_those_of_the_model_however_it_is_divided(model: Any):
    (prompt,) = prompts(45)
    sampling = SamplingParams(max_new_tokens=2, seed=1, prompt_logprobs=True, num_top_logprobs=2)

    async def story(engine: ServingEngine) -> None:
        await engine.generate(prompt, GREEDY)  # what is cached must not be left out
        deltas = (await collect(engine, GenerationRequest(prompt, sampling, num_completions=2)))[0]
        scores = deltas[0].prompt_scores
        assert scores is not None
        assert scores[0].logprob is None
        logprobs = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
        expected = logprobs[:-1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
        assert [score.logprob for score in scores[1:]] == pytest.approx(expected.tolist(), abs=1e-4)
        assert scores[7].top[0][0] == logprobs[6].argmax()

    tell(model, story, max_step_tokens=16, max_batch_size=8)


def test_what_cannot_be_served_is_refused_with_the_reason(model: Any):
    cases = [
        (GenerationRequest([], GREEDY), "the prompt is empty"),
        (GenerationRequest([199], GREEDY), "token 199, and the model's vocabulary ends at 198"),
        (GenerationRequest([-1], GREEDY), "token -1"),
        (GenerationRequest([5] * 250, GREEDY), "do not fit the cache, which holds 160 tokens in 10 blocks"),
        (GenerationRequest([5], SamplingParams(max_new_tokens=0)), "max_new_tokens=0"),
        (GenerationRequest([5], GREEDY, num_completions=0), "num_completions=0"),
        (GenerationRequest([5], GREEDY, adapter="poet"), "no adapter 'poet'; loaded: none"),
        (GenerationRequest([5], SamplingParams(max_new_tokens=4, stop=("x",))), "stop needs a tokenizer"),
    ]

    async def story(engine: ServingEngine) -> None:
        for request, message in cases:
            with pytest.raises(RequestError, match=message):
                await anext(engine.stream(request))

    tell(model, story, num_blocks=10)


def test_a_failing_model_fails_its_requests_and_not_the_engine(model: Any):
    (prompt,) = prompts(20)
    broken = [True]

    def fail(*_: Any) -> None:
        if broken[0]:
            raise ValueError("a broken layer")

    async def story(engine: ServingEngine) -> None:
        hook = model.model.layers[1].register_forward_pre_hook(fail)
        with pytest.raises(EngineError, match="generation failed: ValueError: a broken layer"):
            await engine.generate(prompt, GREEDY)
        broken[0] = False
        assert len((await engine.generate(prompt, GREEDY)).token_ids) == 8
        hook.remove()

    tell(model, story)


def test_dropout_is_off_while_it_generates_and_modules_are_as_before():
    training = make_model(PACKED["gpt2"]).train()
    training.transformer.h[0].eval()
    before = [module.training for module in training.modules()]
    (prompt,) = prompts(20)

    async def story(engine: ServingEngine) -> None:
        first, second = await engine.generate(prompt, GREEDY), await engine.generate(prompt, GREEDY)
        assert first.logprobs == pytest.approx(second.logprobs, abs=1e-5)

    tell(training, story)
    assert [module.training for module in training.modules()] == before


def test_hundreds_of_requests_with_random_cancels_leave_nothing_behind(model: Any):
    generator = random.Random(0)
    openings = prompts(3, 17, 33, 40)

    async def one(engine: ServingEngine) -> None:
        prompt = generator.choice(openings)[: generator.randint(1, 40)]
        sampling = SamplingParams(max_new_tokens=generator.randint(1, 6), seed=generator.randint(0, 99))
        request = GenerationRequest(
            prompt, sampling, generator.randint(1, 3), priority=generator.randint(0, 2),
            timeout_seconds=generator.choice([None, None, 0.01]),
        )  # fmt: skip
        task = asyncio.create_task(collect(engine, request))
        if generator.random() < 0.4:
            await asyncio.sleep(generator.random() * 0.02)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() or task.exception() is None

    async def story(engine: ServingEngine) -> None:
        for _ in range(6):
            await asyncio.gather(*(one(engine) for _ in range(80)))

    tell(model, story, num_blocks=24, max_batch_size=12, max_step_tokens=32)
