import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from pydantic import ValidationError
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from llmkit.config.scoring import ScoringConfig
from llmkit.config.sending import section_of
from llmkit.errors import ModelError, RewardError
from llmkit.rollout.rewards.reward_server import reward_in
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.testing.samples import rollout
from llmkit.testing.tiny import tiny_codec
from llmkit.types import Message, Rollout


def make_head(directory: Path, num_labels: int = 1, pad: int | None = 256) -> Qwen3ForSequenceClassification:
    config = Qwen3Config(
        vocab_size=259,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_labels=num_labels,
        pad_token_id=pad,
    )
    torch.manual_seed(0)
    head = Qwen3ForSequenceClassification(config).eval()
    head.save_pretrained(directory)
    tiny_codec().tokenizer.save_pretrained(directory)
    return head


async def score(rollouts: Sequence[Rollout], **options: Any) -> list[float | None]:
    scorer = Scorer(section_of("rewards", {"name": "reward_model", **options}), ScoringConfig())
    try:
        await scorer.start()
        await scorer.score_all(rollouts)
    finally:
        await scorer.close()
    return [one.reward for one in rollouts]


class TestHead:
    @pytest.mark.parametrize("pad", [256, None])
    def test_it_reads_the_conversation_to_its_last_token(self, tmp_path: Path, pad: int | None):
        head = make_head(tmp_path, pad=pad)
        rollouts = [rollout("a" * size) for size in (1, 9, 4, 30, 2)]
        found = asyncio.run(score(rollouts, path=str(tmp_path), batch_size=2))
        for one, reward in zip(rollouts, found, strict=True):
            messages = (*one.record.messages, Message("assistant", one.completion))
            ids = torch.tensor([tiny_codec().conversation_ids(messages)])
            assert reward == pytest.approx(float(head(input_ids=ids).logits[0, 0].detach()), abs=1e-5)
        assert len(set(found)) == len(found)

    def test_a_model_of_several_labels_is_no_reward_model(self, tmp_path: Path):
        make_head(tmp_path, num_labels=3)
        with pytest.raises(ModelError, match="has 3 labels; a reward model has one"):
            asyncio.run(score([], path=str(tmp_path)))


async def served(handler: Callable[[web.Request], Any], rollouts: Sequence[Rollout], **options: Any) -> Any:
    app = web.Application()
    app.router.add_post("/reward", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        return await score(rollouts, url=f"http://127.0.0.1:{port}/reward", **options)
    finally:
        await runner.cleanup()


class TestServer:
    def test_it_is_asked_about_the_whole_conversation(self):
        asked = []

        async def handler(request: web.Request) -> web.Response:
            asked.append((await request.json(), request.headers.get("Authorization")))
            return web.json_response({"reward": 0.25})

        found = asyncio.run(served(handler, [rollout("seven")], model="rm", api_key="k"))
        assert found == [0.25]
        messages = [{"role": "user", "content": "What is 3 + 4?"}, {"role": "assistant", "content": "seven"}]
        assert asked == [({"messages": messages, "model": "rm"}, "Bearer k")]

    def test_a_second_try_follows_a_failure(self):
        asked = []

        async def handler(request: web.Request) -> web.Response:
            asked.append(1)
            return web.json_response({"reward": 1}, status=200 if len(asked) > 1 else 503)

        assert asyncio.run(served(handler, [rollout("7")])) == [1.0]

    def test_a_server_that_fails_is_named_with_the_row(self):
        async def handler(request: web.Request) -> web.Response:
            return web.Response(status=500, text="out of order")

        with pytest.raises(RewardError, match=r"^rows\.jsonl:1: the reward model at http.*status 500: out of order"):
            asyncio.run(served(handler, [rollout("7")]))

    def test_a_server_that_does_not_answer_has_a_deadline(self):
        async def handler(request: web.Request) -> web.Response:
            await asyncio.sleep(2)
            return web.json_response({"reward": 1})

        with pytest.raises(RewardError, match="TimeoutError"):
            asyncio.run(served(handler, [rollout("7")], timeout_seconds=0.1))

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ({"reward": 0.5}, 0.5),
            ({"data": [{"data": [0.1, 0.7]}]}, 0.7),
            ({"data": [{"data": [[0.1], [0.3]]}]}, 0.3),
            ({"data": [{"probs": [0.9]}]}, 0.9),
            ({"reward": "much"}, None),
            ({"data": []}, None),
            ([1], None),
        ],
    )
    def test_where_a_reward_may_stand(self, answer: Any, expected: float | None):
        assert reward_in(answer) == expected


@pytest.mark.parametrize("options", [{}, {"path": "a", "url": "http://b"}, {"url": "b"}])
def test_one_place_is_needed(options: dict[str, Any]):
    with pytest.raises(ValidationError):
        section_of("rewards", {"name": "reward_model", **options})
