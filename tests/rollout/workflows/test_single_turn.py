"""One question, one answer: which tokens were given and which were sampled, on the scripted engine."""

import asyncio
from dataclasses import replace

import pytest

from llmkit.engines.inference.echo import Config, EchoEngine
from llmkit.errors import DataError
from llmkit.rollout.workflows import single_turn
from llmkit.testing.samples import record
from llmkit.testing.tiny import tiny_codec
from llmkit.types import Message, Record, Rollout, SamplingParams

CODEC = tiny_codec()
END = CODEC.stop_token_ids[0]
PROMPT = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n"


def tokens(text: str) -> list[int]:
    """Ids of plain text: the answer in a conversation, without what the template puts around it."""
    return CODEC.conversation_ids((Message("user", text),))[len("?user\n") : -2]


def run(
    answer: list[int], one: Record | None = None, *, max_new_tokens: int = 32, version: int = 3, pause: bool = False
) -> Rollout:
    async def sample() -> Rollout:
        engine = EchoEngine(Config(script=(tuple(answer),)))
        await engine.load_weights(version)
        sampling = SamplingParams(max_new_tokens=max_new_tokens, stop_token_ids=CODEC.stop_token_ids)
        workflow = single_turn.build(single_turn.Config())
        task = asyncio.ensure_future(workflow.run(one or record(), engine, CODEC, sampling, group_id=5))
        if pause:
            for _ in range(6):  # a token at each turn of the loop, once the request has begun
                await asyncio.sleep(0)
            await engine.pause()
        return await task

    return asyncio.run(sample())


def test_the_prompt_is_given_and_the_answer_sampled():
    answer = [*tokens("It is 7."), END]
    rollout = run(answer)
    prompt_ids = CODEC.prompt_ids((Message("user", "What is 3 + 4?"),))
    assert rollout.token_ids == prompt_ids + answer
    assert rollout.loss_mask == [0] * len(prompt_ids) + [1] * 9
    assert rollout.versions == [-1] * len(prompt_ids) + [3] * 9
    assert rollout.logprobs == [0.0] * len(rollout.token_ids)
    assert rollout.completion_length == 9
    assert (rollout.prompt, rollout.completion) == (PROMPT, "It is 7.")
    assert (rollout.group_id, rollout.record, rollout.reward) == (5, record(), None)


def test_a_stop_token_ends_the_answer_and_belongs_to_it():
    rollout = run([*tokens("Yes"), END, *tokens(" and more")])
    assert rollout.stop_reason == "stop"
    assert rollout.token_ids[-1] == END
    assert rollout.completion == "Yes"


def test_an_answer_that_reaches_the_limit_is_cut_there():
    rollout = run(tokens("For ever and ever"), max_new_tokens=8)
    assert rollout.stop_reason == "length"
    assert rollout.completion == "For ever"
    assert rollout.completion_length == 8


def test_an_engine_that_is_paused_gives_what_it_has():
    rollout = run(tokens("For ever and ever"), pause=True)
    assert rollout.stop_reason == "cancelled"
    assert 0 < rollout.completion_length < len("For ever and ever")
    assert len(rollout.token_ids) == len(rollout.loss_mask) == len(rollout.logprobs) == len(rollout.versions)


def test_an_answer_in_the_record_is_not_shown_to_the_policy():
    answered = replace(record(), messages=(Message("user", "What is 3 + 4?"), Message("assistant", "7")))
    assert run([END], answered).prompt == PROMPT


def test_earlier_turns_and_a_system_message_stay():
    messages = (
        Message("system", "Be brief."),
        Message("user", "2 + 2?"),
        Message("assistant", "4"),
        Message("user", "3 + 4?"),
    )
    assert run([END], replace(record(), messages=messages)).prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_special_tokens_in_a_question_are_text():
    spelled = record("What is <|im_end|>?")
    rollout = run([END], spelled)
    given = [token for token, mask in zip(rollout.token_ids, rollout.loss_mask, strict=True) if not mask]
    assert given.count(END) == 1  # the template's own alone
    assert rollout.prompt == PROMPT.replace("3 + 4", "<|im_end|>")


def test_a_prompt_that_is_no_text_names_its_row():
    with pytest.raises(DataError, match=r"^rows\.jsonl:1: .*surrogate"):
        run([END], record("\ud800"))
