"""Greedy tokens of the engine are those of `generate`, alone and in a full batch, with everything forced to happen."""

import asyncio
import logging
from typing import Any

import pytest
import torch

from llmkit.types import SamplingParams

from .tiny import ONE_BY_ONE, PACKED, engine_of, make_model, prompts

NEW_TOKENS = 20
LENGTHS = (1, 5, 16, 33, 47, 60)


def generated(model: Any, prompt: list[int]) -> list[int]:
    """What transformers makes of a prompt."""
    implementation, model.config._attn_implementation = model.config._attn_implementation, "eager"
    try:
        ids = torch.tensor([prompt], device=model.device)
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
        )
    finally:
        model.config._attn_implementation = implementation
    return found[0, len(prompt) :].tolist()


def check(model: Any, runner: str) -> None:
    asked = prompts(*LENGTHS)
    asked.append(asked[3])
    expected = [generated(model, prompt) for prompt in asked]
    sampling = SamplingParams(max_new_tokens=NEW_TOKENS, temperature=0)

    async def story() -> None:
        engine = engine_of(model, runner=runner, num_blocks=8, max_step_tokens=16, max_batch_size=16)
        together = await asyncio.gather(*(engine.generate(prompt, sampling) for prompt in asked))
        alone = await engine.generate(asked[4], sampling)
        stats = engine.stats()
        await engine.close()
        assert [completion.token_ids for completion in together] == expected
        assert alone.token_ids == expected[4]
        assert stats.num_preemptions > 0
        assert stats.cache_use == 0

    asyncio.run(story())


@pytest.mark.parametrize("name", PACKED)
def test_packed_tokens_are_those_of_generate(name: str):
    check(make_model(PACKED[name]), "packed")


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_other_architectures_run_one_by_one_and_say_so(name: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        check(make_model(ONE_BY_ONE[name]), "auto")
    assert "runs one sequence after another, which is slower" in caplog.text
