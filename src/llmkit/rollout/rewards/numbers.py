"""Numbers as people and models write them, as exact fractions."""

import re
from dataclasses import dataclass
from fractions import Fraction

SIGNS = str.maketrans({"−": "-", "–": "-", "﹣": "-", "－": "-", "＋": "+", "⁄": "/", "∕": "/", "，": ",", "．": ".", "％": "%"})
FULL_WIDTH_DIGITS = str.maketrans("０１２３４５６７８９", "0123456789")
VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8"}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

DECIMAL = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?|\.\d+"
NUMBER = re.compile(
    rf"""
    (?P<skip>\d+(?::\d+)+|\d+/\d+/\d+)                      # a time, a ratio or a date is no number
    | (?P<sign>(?<![\w)\].])[-+]\s?)? [$€£¥]? \s* (?P<inner_sign>(?<![\w)\] ])[-+])?
      (?:
          (?P<whole>\d+) (?:\ +and)? \ + (?P<numerator>\d+) \s*/\s* (?P<denominator>\d+)
        | (?P<dividend>{DECIMAL}) \s*/\s* (?P<divisor>-?(?:{DECIMAL}))
        | (?P<decimal>{DECIMAL}) (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?![\w.])|\s*(?:×|\*)\s*10\^\(?(?P<power>-?\d{{1,3}})\)?)?
      )
      (?P<percent>\s*(?:%|percent\b|per\ cent\b))?
      (?:\s+(?P<scale>thousand|million|billion|trillion)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)

COMMANDS = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|[,!;: ])")
TEXT_COMMANDS = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|operatorname|mbox)\s*\{([^{}]*)\}")
FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([^{}]*?)\s*\}|(\d))\s*(?:\{\s*([^{}]*?)\s*\}|(\d))")
UNIT_POWER = re.compile(r"(?<=[A-Za-z])\s*(?:\^\s*\{?[23]\}?|[²³])")
EXPRESSION = re.compile(r"\\[A-Za-z]|\^|√|π")
"""What is left of a formula that is more than a number."""


@dataclass(frozen=True)
class Number:
    """A number and how it was written.

    Attributes:
        value: the number before its percent sign and scale.
        percent: a percent sign or the word follows.
        scale: 1,000,000 when the word million follows; 1 without such a word.
    """

    value: Fraction
    percent: bool = False
    scale: int = 1


def plain_text(text: str) -> str:
    """Text without LaTeX spacing, `\\text`, `\\frac` and typographic variants of digits and signs."""
    text = text.translate(SIGNS).translate(FULL_WIDTH_DIGITS)
    for sign, fraction in VULGAR.items():
        text = re.sub(rf"(?<=\d)\s*{sign}", f" {fraction}", text).replace(sign, fraction)
    text = re.sub(r"(?<=\d)(?:\{,\}|\\,|\\!|[\u00a0\u2009\u202f'’])(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°", " degrees", text)
    text = text.replace("\\$", "$").replace("\\%", "%").replace("\\!", "").replace("\\times", "×").replace("\\cdot", "*")
    text = re.sub(r"\^\s*\{\s*(-?\d+)\s*\}", r"^\1", text)
    text = TEXT_COMMANDS.sub(r" \1 ", COMMANDS.sub(" ", text))
    text = FRACTION.sub(_written_fraction, text)
    return UNIT_POWER.sub("", text)


def parse_number(text: str) -> Number | None:
    """The first number of a final answer: `$1,234.50`, `-3/4`, `2 1/2`, `50%`, `72 km/h`, `\\frac{1}{2}`.

    Where the text is an equation, the first number after its last equals sign. None when there is no number, or the
    text is an expression (`2\\sqrt{3}`) of which a number is only a part.
    """
    text = plain_text(text)
    if "=" in text:
        text = text.rsplit("=", 1)[1]
    found = numbers_in(text)
    if not found:
        return None
    number, end = found[0]
    return None if EXPRESSION.search(text[:end] if _is_prose(text, end) else text.replace(_power(text), "")) else number


def numbers_in(text: str) -> list[tuple[Number, int]]:
    """Every number of plain text in order, each with the position after it."""
    found = ((_number(match), match.end()) for match in NUMBER.finditer(text) if match["skip"] is None)
    return [(number, end) for number, end in found if number is not None]
