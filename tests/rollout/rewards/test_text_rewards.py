"""Rewards that look at text and tokens alone, by numbers to check by hand."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from llmkit import plugins
from llmkit.config.sending import section_of
from llmkit.errors import RewardError
from llmkit.rollout.score import score
from llmkit.testing.samples import rollout
from llmkit.types import Rollout


def value(name: str, one: Rollout, **options: Any) -> float:
    section: Any = section_of("rewards", {"name": name, **options})
    front = plugins.load("rewards", name)
    whole = asyncio.run(score(front.build(section), one, name))
    quick = getattr(front, "quick", lambda *_: None)(section, one)
    assert quick in (None, whole)
    return whole


class TestMatch:
    @pytest.mark.parametrize(
        ("completion", "answer", "expected"),
        [
            ("Paris", "paris", 1),
            (" in  Paris\n", "In Paris", 1),
            ("Paris.", "Paris", 0),
            ("Paris<|im_end|>", "Paris", 1),
        ],
    )
    def test_exactly(self, completion: str, answer: str, expected: float):
        assert value("match", rollout(completion, answer)) == expected

    def test_case_may_count(self):
        assert value("match", rollout("paris", "Paris"), ignore_case=False) == 0

    def test_anywhere(self):
        assert value("match", rollout("It is in Paris, I think.", "in paris"), method="contains") == 1
        assert value("match", rollout("It is in Rome.", "in paris"), method="contains") == 0

    def test_what_an_expression_finds_last(self):
        options = {"method": "regex", "pattern": r"<a>(.*?)</a>"}
        assert value("match", rollout("<a>1</a> no, <a>2</a>", "2"), **options) == 1
        assert value("match", rollout("<a>2</a> no, <a>1</a>", "2"), **options) == 0
        assert value("match", rollout("2", "2"), **options) == 0
        assert value("match", rollout("room 17", "17"), method="regex", pattern=r"\d+") == 1

    def test_an_answer_that_is_an_expression(self):
        assert value("match", rollout("colour", "colou?r"), method="regex") == 1
        assert value("match", rollout("shade", "colou?r"), method="regex") == 0

    @pytest.mark.parametrize(
        ("completion", "expected"),
        [
            ("B", 1),
            ("(b)", 1),
            ("The answer is B.", 1),
            ("**Answer: (B)** since A is wrong", 1),
            ("A is wrong, so it must be B", 1),
            ("B is wrong, so it must be A", 0),
            (r"A? B? \boxed{B}, not C", 1),
            (r"\boxed{\text{B}}", 1),
            ("Bananas are yellow", 0),
            ("I do not know", 0),
        ],
    )
    def test_the_letter_that_is_chosen(self, completion: str, expected: float):
        assert value("match", rollout(completion, "B) bananas"), method="choice") == expected

    def test_a_row_without_an_answer_is_named(self):
        with pytest.raises(RewardError, match=r"^rows\.jsonl:1: no reference answer for the reward 'match'"):
            value("match", rollout("B", None))

    def test_a_pattern_without_use_is_refused(self):
        with pytest.raises(ValidationError, match="goes with method=regex"):
            value("match", rollout("B"), pattern="B")
        with pytest.raises(ValidationError, match="is no regular expression"):
            value("match", rollout("B"), method="regex", pattern="(")


class TestFormat:
    TAGS = ("think", "answer")

    @pytest.mark.parametrize(
        ("completion", "expected"),
        [
            ("<think>a</think><answer>b</answer>", 1),
            ("\n<think>\na\n</think>\n\n<answer>b</answer>\n", 1),
            ("<answer>b</answer><think>a</think>", 0),
            ("<think>a</think>", 0),
            ("so <think>a</think><answer>b</answer>", 0),
            ("<think>a</think><answer>b</answer> bye", 0),
            ("<think>a</think> so <answer>b</answer>", 0),
            ("<think>a<think>b</think></think><answer>b</answer>", 0),
            ("", 0),
        ],
    )
    def test_tags_enclose_everything_in_order(self, completion: str, expected: float):
        assert value("format", rollout(completion), tags=self.TAGS) == expected

    def test_the_prompt_may_have_begun(self):
        assert value("format", rollout("a</think><answer>b</answer>"), tags=self.TAGS, prefix="<think>") == 1

    def test_an_expression_matches_the_whole(self):
        assert value("format", rollout("a\nb"), pattern="a.b") == 1
        assert value("format", rollout("a\nbc"), pattern="a.b") == 0

    def test_turns(self):
        one = rollout("ab")
        one.turns = ("b", "a")
        assert value("format", one, pattern="a") == 1
        assert value("format", one, pattern="a", every_turn=True) == 0

    @pytest.mark.parametrize("options", [{}, {"tags": ["a"], "pattern": "b"}, {"tags": ["<a>"]}, {"pattern": "("}])
    def test_settings_that_make_no_sense_are_refused(self, options: dict[str, Any]):
        with pytest.raises(ValidationError):
            value("format", rollout(""), **options)


class TestLength:
    @pytest.mark.parametrize(("length", "expected"), [(0, 0), (60, 0), (70, -0.25), (80, -0.5), (100, -1), (120, -1)])
    def test_overlong_ones_lose_up_to_one(self, length: int, expected: float):
        # without a penalty up to 100 - 40 tokens, then 1/40 for each
        assert value("length", rollout("x" * length), max_tokens=100, buffer_tokens=40) == expected

    @pytest.mark.parametrize(("length", "expected"), [(50, 0), (40, -0.5), (60, -0.5), (10, -1), (100, -1)])
    def test_distance_from_a_target(self, length: int, expected: float):
        assert value("length", rollout("x" * length), target_tokens=50, tolerance_tokens=20) == expected

    @pytest.mark.parametrize("options", [{}, {"max_tokens": 5, "target_tokens": 5}, {"max_tokens": 5}])
    def test_settings_that_make_no_sense_are_refused(self, options: dict[str, Any]):
        with pytest.raises(ValidationError):
            value("length", rollout(""), **options)


class TestRepetition:
    @pytest.mark.parametrize(
        ("completion", "size", "expected"),
        [
            ("abcdef", 2, 0.0),
            ("aaaaa", 2, -0.75),  # 4 pairs, 1 of them new
            ("abab", 2, pytest.approx(-1 / 3)),  # ab ba ab
            ("ab", 4, 0.0),
            ("", 4, 0.0),
        ],
    )
    def test_the_share_of_repeated_ngrams(self, completion: str, size: int, expected: float):
        assert value("repetition", rollout(completion, question="aaaa"), ngram_size=size) == expected

    def test_what_was_given_between_turns_is_not_counted(self):
        one = rollout("xyxy", question="")
        one.loss_mask = [1, 0, 0, 1]
        assert value("repetition", one, ngram_size=2) == 0.0


class TestMath:
    @pytest.mark.parametrize(
        ("completion", "answer", "expected"),
        [
            (r"\boxed{72}", "72", 1),
            (r"\boxed{\frac{1}{2}}", "0.5", 1),
            (r"\boxed{2\sqrt{2}}", r"\sqrt{8}", 1),
            (r"\boxed{(1, 2]}", r"(1,2]", 1),
            (r"\boxed{x^2-1}", "(x-1)(x+1)", 1),
            (r"\boxed{3}", "4", 0),
            ("It is 72", "72", 0),
            ("", "72", 0),
        ],
    )
    def test_formulas_are_compared_as_such(self, completion: str, answer: str, expected: float):
        assert value("math", rollout(completion, answer)) == expected

    def test_the_last_turn_counts(self):
        one = rollout(r"\boxed{72} I am not sure", "72")
        one.turns = (r"\boxed{72}", "I am not sure")
        assert value("math", one) == value("gsm8k", one) == 0
        assert value("math", rollout("It is 72", "72"), strict=False) == 1
