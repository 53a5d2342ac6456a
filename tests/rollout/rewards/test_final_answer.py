from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.rollout.rewards.final_answer import extract_answer
from llmkit.rollout.rewards.numbers import Number, last_number, parse_number, same_number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48/2=24\n48+24=72\n#### 72", "72"),
        ("####72", "72"),
        ("####\n72", "72"),
        ("#### 72\nHope this helps! I had 3 tries.", "72"),
        ("#### 5\nNo, wait.\n#### 72", "72"),
        ("#### 1 #### 2 #### 3", "3"),
        ("#### 72<|im_end|>", "72"),
        ("#### 72</s>", "72"),
        ("#### \\boxed{72}", "72"),
        ("so \\boxed{72}.", "72"),
        ("\\boxed{1} or rather \\boxed{72}", "72"),
        ("\\fbox{72}", "72"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("#### 5, that is \\boxed{72}", "72"),
        ("\\boxed{5}\n#### 72", "72"),
        ("The answer is 72.", "72"),
        ("The answer is $1,234.50.", "$1,234.50"),
        ("The answer is 72. So 3 are left.", "72"),
        ("The answer to part (b) is: 72", "72"),
        ("**Answer:** 72", "72"),
        ("Final answer: **72**", "72**"),
        ("**Final Answer**\n\n72", "72"),
        ("ANSWER = 72", "72"),
        ("The answer is \\(72\\).", "\\(72\\)"),
        ("The answer is correct. I tried 5 times.\n#### 72\n", "72"),
        ("#### Monday", "Monday"),
    ],
)
def test_the_last_marked_answer_counts(text: str, answer: str):
    assert extract_answer(text, strict=True) == answer
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so she has 24 + 48 = 72 clips", "72"),
        ("She sold <<48+24=72>>72 clips.", "72"),
        ("The answer is correct. I tried 5 times", "5"),
        ("72 at 10:30", "72"),
        ("\\boxed{72", "72"),
        ("it costs $1,234.50.", "$1,234.50"),
    ],
)
def test_without_a_mark_the_last_number_counts_unless_strict(text: str, answer: str):
    assert extract_answer(text) == answer
    assert extract_answer(text, strict=True) is None


@pytest.mark.parametrize("text", ["", "I do not know.", "####", "\\boxed{}", "<|reserved_5|>"])
def test_no_answer(text: str):
    assert extract_answer(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        ("-5", -5),
        ("\N{MINUS SIGN}5", -5),
        ("+5", 5),
        ("5.", 5),
        ("5.00", 5),
        (".5", Fraction(1, 2)),
        ("1,234.50", Fraction(2469, 2)),
        ("$1,234,567", 1234567),
        ("-$5", -5),
        ("$-5", -5),
        ("\\$5", 5),
        ("€ 7.25", Fraction(29, 4)),
        ("1{,}234", 1234),
        ("1\\,234", 1234),
        ("1\N{NARROW NO-BREAK SPACE}234", 1234),
        ("3/4", Fraction(3, 4)),
        ("-3/4 of a cake", Fraction(-3, 4)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("-\\dfrac{3}{4}", Fraction(-3, 4)),
        ("\\frac12", Fraction(1, 2)),
        ("2\\frac{1}{2}", Fraction(5, 2)),
        ("2 1/2", Fraction(5, 2)),
        ("2 and 1/2 hours", Fraction(5, 2)),
        ("2½", Fraction(5, 2)),
        ("¾", Fraction(3, 4)),
        ("1.5e3", 1500),
        ("1.5 \\times 10^{3}", 1500),
        ("７２", 72),
        ("72 apples", 72),
        ("72 km/h", 72),
        ("72km", 72),
        ("72\\text{ dollars}", 72),
        ("72 \\text{ cm}^2", 72),
        ("72 m²", 72),
        ("90^\\circ", 90),
        ("$72$", 72),
        ("**72**", 72),
        ("*72* (in total)", 72),
        ("x = 72", 72),
        ("48 + 24 = 72", 72),
        ("5 apples + 4 apples = 9 apples", 9),
        ("5 * (3 + 1) = 20", 20),
        ("72 (that is 48 + 24 = 72)", 72),
        ("72, since 24 = 48/2", 72),
        ("72 - all were sold", 72),
        ("\\approx 3.14", Fraction(157, 50)),
        ("about 72", 72),
        ("10/4", Fraction(5, 2)),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction | int):
    number = parse_number(text)
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    "text",
    [
        "", "Monday", "2\\sqrt{3}", "\\sqrt{16}", "\\frac{\\pi}{2}", "\\pi/2", "3^2", "48 + 24", "3-4", "5-3", "10:30",
        "1/2/2020", "1/0", "(1, 2)", "9" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_single_number_is_not_read(text: str):
    assert parse_number(text) is None


def test_percent_and_scale_are_kept_apart():
    assert parse_number("50%") == Number(Fraction(50), percent=True)
    assert parse_number("12.5 percent") == Number(Fraction(25, 2), percent=True)
    assert parse_number("50\\%") == Number(Fraction(50), percent=True)
    assert parse_number("1.5 million") == Number(Fraction(3, 2), scale=10**6)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("50%", "50%", True),
        ("50", "50%", True),
        ("0.5", "50%", True),
        ("0.5%", "50%", False),
        ("50%", "50", True),
        ("0.5", "50", False),
        ("0.5", "0.5", True),
        ("50%", "0.5", True),
        ("0.5%", "0.5", False),
        ("100%", "1", False),
        ("0", "0%", True),
        ("0%", "0", True),
        ("1.5 million", "1,500,000", True),
        ("2 million", "2", True),
        ("2", "2 million", False),
        ("2 million", "2 million", True),
        ("33.33", "33.333", False),
        ("0.1", "1/10", True),
        ("72", "-72", False),
    ],
)
def test_the_references_form_decides(answer: str, reference: str, same: bool):
    number, wanted = parse_number(answer), parse_number(reference)
    assert number is not None
    assert wanted is not None
    assert same_number(number, wanted) is same


@settings(deadline=None, max_examples=300)
@given(
    whole=st.integers(-(10**12), 10**12),
    cents=st.integers(0, 99),
    template=st.sampled_from(
        ["#### {}", "#### ${}", "The answer is {}.", "\\boxed{{{}}}", "Answer: {} dollars", "#### {} apples\nBye 3"]
    ),
)
def test_every_amount_is_found_however_it_is_marked(whole: int, cents: int, template: str):
    answer = extract_answer(template.format(f"{whole:,}.{cents:02d}"), strict=True)
    assert answer is not None
    number = parse_number(answer)
    assert number is not None
    sign = -1 if whole < 0 else 1
    assert number.value == whole + sign * Fraction(cents, 100)


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.sampled_from("0123456789.,/%$-+= \n#{}\\abcfrx()[]^½"), max_size=30))
def test_no_text_is_too_strange(text: str):
    for answer in (extract_answer(text), extract_answer(text, strict=True), last_number(text), text):
        number = None if answer is None else parse_number(answer)
        assert number is None or isinstance(number.value, Fraction)
