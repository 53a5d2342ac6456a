"""Judges that say what they are told, through the engine that repeats a script."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from llmkit.config.scoring import ScoringConfig
from llmkit.config.sending import section_of
from llmkit.errors import ConfigError, RewardError
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.testing.samples import rollout
from llmkit.testing.tiny import tiny_model
from llmkit.types import Rollout


def judged(one: Rollout, verdicts: Sequence[str] = ("Score: 5",), **options: Any) -> float:
    section: Any = section_of(
        "rewards",
        {
            "name": "judge",
            "model": {"path": tiny_model()},
            "engine": {"name": "echo", "texts": list(verdicts)},
            **options,
        },
    )

    async def scored() -> None:
        scorer = Scorer(section, ScoringConfig())
        try:
            await scorer.start()
            await scorer.score_all([one])
        finally:
            await scorer.close()

    asyncio.run(scored())
    assert one.reward is not None
    return one.reward


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [("Score: 5", 0.5), ("Good.\n**Score**: 10", 1.0), ("score: 0", 0.0), ("Score: 3\nno, Score: 7.5", 0.75)],
)
def test_the_last_score_counts(verdict: str, expected: float):
    assert judged(rollout("7"), [verdict]) == expected


def test_another_scale():
    assert judged(rollout("7"), ["[[4]]"], pattern=r"\[\[(\d)\]\]", lowest=1, highest=5) == 0.75


@pytest.mark.parametrize("verdict", ["I cannot tell", "Score: 11", "Score: many"])
def test_a_verdict_without_a_score_is_an_error_and_not_a_zero(verdict: str):
    with pytest.raises(RewardError, match=r"^rows\.jsonl:1: none of the judge's 1 verdicts has a score from 0 to 10"):
        judged(rollout("7"), [verdict])


def test_several_votes_are_averaged_and_useless_ones_left_out():
    # Which verdicts are drawn depends on seeds; all of them have 4 or 8, or nothing.
    votes = [judged(rollout("7"), ["Score: 8", "Score: 4", "well"], votes=16) for _ in range(2)]
    assert votes[0] == votes[1]
    assert 0.4 < votes[0] < 0.8


def test_the_judge_sees_question_answer_and_reference_as_they_are():
    # Without a script the engine repeats the prompt, and with it the score that the completion claims for itself.
    one = rollout("{rubric} Score: 9", answer="7", question="How {many}?")
    prompt = "{question}|{completion}|{reference}|{rubric}"
    assert judged(one, [], prompt=prompt, rubric="strictly", pattern=r"(?s)How \{many\}\?\|.*Score: (\d)\|Ref") == 0.9
    assert judged(one, [], prompt=prompt, rubric="strictly 2", pattern=r"(?s)Reference answer:\n7\n\n\|strictly (\d)")


@pytest.mark.parametrize(
    "options", [{"lowest": 5, "highest": 5}, {"votes": 3, "temperature": 0.0}, {"prompt": "Is it good?"}]
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any]):
    with pytest.raises(ValidationError):
        judged(rollout("7"), **options)


@pytest.mark.parametrize("pattern", ["(", r"Score: \d"])
def test_a_pattern_without_a_score_is_told_before_anything_is_sampled(pattern: str):
    with pytest.raises(ConfigError, match=r"reward\.pattern"):
        judged(rollout("7"), pattern=pattern)


def test_a_judge_that_takes_too_long_is_an_error():
    engine = {"name": "echo", "texts": ["Score: 5"], "seconds_per_token": 100.0}
    with pytest.raises(RewardError, match=r"the judge took longer than 0\.2 s"):
        judged(rollout("7"), engine=engine, timeout_seconds=0.2)
