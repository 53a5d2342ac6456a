import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import ValidationError

from llmkit.errors import PluginError, RewardError
from llmkit.rollout.rewards.gsm8k import Config, build
from llmkit.types import Record, Rollout, Source

GSM8K = Path(__file__).parents[4] / "shared" / "data" / "gsm8k"


def rollout(completion: str, answer: str | None) -> Rollout:
    record = Record((), Source("test.jsonl", 17), answer=answer)
    return Rollout([], [], [], [], "stop", record, 0, "", completion)


def reward(completion: str, answer: str | None, **options) -> float:
    return build(Config(**options))(rollout(completion, answer))


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        ("48+24=72\n#### 72", "72", 1.0),
        ("#### 73", "72", 0.0),
        ("#### 72.00", "72", 1.0),
        ("\\boxed{1{,}234}", "1,234", 1.0),
        ("The answer is $1,234.50.", "1234.5", 1.0),
        ("#### 72\n#### unknown", "72", 0.0),
        ("#### monday.", "Monday", 1.0),
        ("\\boxed{\\text{Monday}}", "Monday", 1.0),
        ("", "72", 0.0),
        ("She has 72.", "72", 1.0),
        # A reference that is a worked answer gives its own final answer.
        ("#### 72", "48+24=72\n#### 72", 1.0),
    ],
)
def test_right_is_one_and_wrong_is_zero(completion: str, answer: str, expected: float):
    assert reward(completion, answer) == reward(completion, answer, method="exact") == expected


def test_strict_wants_a_marked_answer():
    assert reward("She has 72.", "72", strict=True) == 0.0
    assert reward("The answer is 72.", "72", strict=True) == 1.0


@pytest.mark.parametrize("answer", [None, "", "  "])
def test_a_record_without_reference_answer_is_named(answer: str | None):
    with pytest.raises(RewardError, match=r"^test\.jsonl:17: no reference answer for the reward 'gsm8k'"):
        reward("#### 72", answer)


@pytest.mark.skipif(not GSM8K.is_dir(), reason="the GSM8K files are not here")
def test_every_worked_gold_answer_is_right():
    worked = [
        json.loads(line)["answer"]
        for split in ("train", "test")
        for line in (GSM8K / f"{split}.jsonl").read_text().splitlines()
    ]
    assert len(worked) == 8792
    right = build(Config(strict=True, method="exact"))
    wrong = [text for text in worked if right(rollout(text, text.rsplit("####")[-1].strip())) != 1.0]
    assert wrong == []
    other = [text for text in worked if right(rollout(text, text.rsplit("####")[-1].strip() + "1")) != 0.0]
    assert other == []


@pytest.mark.skipif(find_spec("math_verify") is not None, reason="math-verify is installed")
def test_math_verify_that_is_not_installed_says_how_to_install_it():
    with pytest.raises(PluginError, match=r"pip install 'llmkit\[math\]'"):
        build(Config(method="math_verify"))


@pytest.mark.skipif(find_spec("math_verify") is None, reason="math-verify is not installed")
@pytest.mark.parametrize("method", ["auto", "math_verify"])
def test_math_verify_compares_formulas(method: str):
    assert reward("\\boxed{2\\sqrt{3}}", "\\sqrt{12}", method=method) == 1.0
    assert reward("\\boxed{2\\sqrt{3}}", "\\sqrt{13}", method=method) == 0.0
    assert reward("\\boxed{\\frac{1}{2}}", "0.5", method=method) == 1.0


def test_an_unknown_method_is_refused():
    with pytest.raises(ValidationError):
        Config(method="guess")
