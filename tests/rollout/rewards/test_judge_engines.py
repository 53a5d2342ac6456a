"""Judges in real engines, whose verdicts are held to a form: in this process, and behind a server."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from llmkit.config.scoring import ScoringConfig
from llmkit.config.sending import section_of
from llmkit.errors import LLMKitError, RewardError
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.testing.samples import rollout
from llmkit.testing.tiny import tiny_model

STRUCTURED = {"structured": True, "reasoning_characters": 10, "votes": 3, "temperature": 1.0, "max_new_tokens": 200}


def judged(engine: dict[str, Any], **options: Any) -> list[float]:
    """Rewards of three rollouts, of which two are alike."""
    section: Any = section_of(
        "rewards", {"name": "judge", "model": {"path": tiny_model()}, "engine": engine, **STRUCTURED, **options}
    )
    rollouts = [rollout("seven", question="How many?"), rollout("8", answer="8"), rollout("8", answer="8")]

    async def scored() -> None:
        scorer = Scorer(section, ScoringConfig())
        try:
            await scorer.start()
            await scorer.score_all(rollouts)
        finally:
            await scorer.close()

    asyncio.run(scored())
    return [one.reward for one in rollouts if one.reward is not None]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`llmkit serve` over the native engine."""
    command = [sys.executable, "-m", "llmkit", "serve", "--port", "0", "--json", "--model", tiny_model()]
    log = tmp_path_factory.mktemp("judge") / "serve.log"
    with log.open("w") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            assert line, log.read_text()
            yield json.loads(line)["url"]
        finally:
            server.terminate()


def assert_grades(rewards: list[float], steps: int) -> None:
    """Means of three votes on a scale of so many steps; the same rollout has the same verdicts."""
    assert len(rewards) == 3
    assert rewards[1] == rewards[2]
    for reward in rewards:
        assert 0 <= reward <= 1
        assert (reward * 3 * steps) == pytest.approx(round(reward * 3 * steps))


def test_a_model_of_random_weights_in_this_process_gives_every_verdict_a_score():
    assert_grades(judged({"name": "native"}), 10)


def test_the_score_alone_on_another_scale():
    assert_grades(judged({"name": "native"}, reasoning_characters=0, lowest=-2, highest=2, max_new_tokens=40), 4)


def test_a_judge_behind_a_server_grades_alike_each_time(url: str):
    rewards = judged({"name": "openai", "urls": [url]})
    assert_grades(rewards, 10)
    assert rewards == judged({"name": "openai", "urls": [url]})


def test_a_verdict_that_is_cut_off_is_an_error_and_not_a_zero():
    with pytest.raises(RewardError, match="none of the judge's 3 verdicts has a score"):
        judged({"name": "native"}, max_new_tokens=4)


def test_a_judge_behind_an_address_where_nothing_answers_is_an_error():
    with pytest.raises(LLMKitError, match=r"http://127\.0\.0\.1:9"):
        judged({"name": "openai", "urls": ["http://127.0.0.1:9"], "deadlines": {"connect_seconds": 2}})
