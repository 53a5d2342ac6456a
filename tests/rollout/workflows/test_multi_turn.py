import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmkit import plugins
from llmkit.config.sending import section_of
from llmkit.errors import DataError
from llmkit.rollout.opening import close_workflow, open_workflow
from llmkit.testing.samples import record
from llmkit.testing.tiny import tiny_codec
from llmkit.testing.workflow import LOGPROB, RecordingEngine
from llmkit.types import Message, Record, Rollout, SamplingParams

CODEC = tiny_codec()
SAMPLING = SamplingParams(max_new_tokens=200, stop_token_ids=CODEC.stop_token_ids)


def make(
    answers: Sequence[str], *, one: Record | None = None, sampling: SamplingParams = SAMPLING, **options: Any
) -> Rollout:
    section: Any = section_of("workflows", {"name": "multi_turn", "feedback": "No.", **options})
    workflow = plugins.load("workflows", "multi_turn").build(section)

    async def run() -> Rollout:
        try:
            await open_workflow(workflow, CODEC)
            return await workflow.run(one or record(), RecordingEngine(answers), CODEC, sampling, 3)
        finally:
            await close_workflow(workflow)

    return asyncio.run(run())


def test_a_right_answer_is_the_only_one():
    rollout = make(["#### 7", "#### 8"])
    assert (rollout.turns, rollout.discount, rollout.stop_reason) == (("#### 7",), 1.0, "stop")
    assert rollout.reward is None
    assert rollout.rewards == {}


def test_a_wrong_answer_is_followed_by_feedback_and_another_try():
    rollout = make(["#### 8", "#### 7"], max_turns=3, discount=0.5)
    assert (rollout.turns, rollout.completion, rollout.discount) == (("#### 8", "#### 7"), "#### 8\n#### 7", 0.5)
    messages = (*record().messages, Message("assistant", "#### 8"), Message("user", "No."))
    whole = CODEC.conversation_ids((*messages, Message("assistant", "#### 7")))
    assert rollout.token_ids == whole[: len(rollout.token_ids)]
    assert CODEC.decode(whole[len(rollout.token_ids) :]) == "\n"
    sampled = [token for token, flag in zip(rollout.token_ids, rollout.loss_mask, strict=True) if flag]
    assert CODEC.decode(sampled) == "#### 8<|im_end|>#### 7<|im_end|>"
    assert {logprob for logprob, flag in zip(rollout.logprobs, rollout.loss_mask, strict=True) if flag} == {LOGPROB}
    assert {logprob for logprob, flag in zip(rollout.logprobs, rollout.loss_mask, strict=True) if not flag} == {0.0}


def test_tries_are_limited():
    rollout = make(["#### 8"], max_turns=4, discount=0.5)
    assert (len(rollout.turns), rollout.discount, rollout.stop_reason) == (4, 0.125, "stop")


def test_all_turns_share_the_tokens_of_one_completion():
    one = make(["#### 8"], max_turns=9, sampling=replace(SAMPLING, max_new_tokens=100))
    prompt = len(CODEC.prompt_ids(record().messages))
    assert len(one.token_ids) <= prompt + 100
    assert one.stop_reason == "length"
    assert one.loss_mask[-1] == 1, "feedback without an answer to it trains nothing"


def test_a_try_that_was_cut_off_is_the_last():
    one = make(["#### 8888", "#### 7"], max_turn_tokens=3)
    assert (one.turns, one.stop_reason) == (("###",), "length")


def test_the_verifier_sees_the_last_try_alone(tmp_path: Path):
    verifier = tmp_path / "verifier.py"
    verifier.write_text("def yes(rollout):\n    return 0.5 if rollout.last_turn == 'yes' else 0.0\n")
    function = {"name": "function", "function": f"{verifier}:yes"}
    rollout = make(["no", "yes", "no"], max_turns=5, verifier=function, right_at=0.5)
    assert rollout.turns == ("no", "yes")


def test_a_verifier_that_fails_ends_the_rollout_and_is_told():
    rollout = make(["#### 7"], one=record(answer=None))
    assert len(rollout.turns) == 1
    assert "no reference answer for the reward 'gsm8k'" in (rollout.reward_error or "")


def test_each_turn_draws_with_a_seed_of_its_own():
    seeds: list[int | None] = []

    class Listening(RecordingEngine):
        async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Any:
            seeds.append(sampling.seed)
            return await super().generate(prompt_ids, replace(sampling, seed=None))

    workflow = plugins.load("workflows", "multi_turn").build(section_of("workflows", {"name": "multi_turn"}))

    async def run() -> None:
        engine = Listening(["#### 8"])
        await workflow.run(record(), engine, CODEC, replace(SAMPLING, seed=5), 0)
        await workflow.close()

    asyncio.run(run())
    assert seeds[0] == 5
    assert len(set(seeds)) == 2


def test_what_is_added_to_a_prompt_needs_room():
    workflow = plugins.load("workflows", "math").build(section_of("workflows", {"name": "math"}))
    with pytest.raises(DataError, match=r"adds \d+ tokens to this prompt, and sampling\.max_new_tokens=20 is for them"):
        asyncio.run(
            workflow.run(record(), RecordingEngine(["7"]), CODEC, replace(SAMPLING, max_new_tokens=20), group_id=0)
        )
