"""Numbers as people and models write them, as exact fractions."""

import re
from dataclasses import dataclass
from fractions import Fraction

CHARACTERS = str.maketrans("−–﹣－＋⁄∕，．％≈０１２３４５６７８９", "----+//,.%=0123456789")
"""Typographic and full-width characters, and what they are on a keyboard."""
VULGAR_FRACTIONS = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

DECIMAL = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?|\.\d+"
NUMBER = re.compile(
    rf"""
    (?P<skip>\d+(?::\d+)+|\d+/\d+/\d+)                      # a time, a ratio or a date is no number
    | (?P<sign>(?<![\w)\].])[-+])? (?:[$€£¥]\s*(?P<inner_sign>[-+])?)?
      (?:
          (?P<whole>\d+) (?:\ +and)? \ + (?P<numerator>\d+) \s*/\s* (?P<denominator>\d+)
        | (?P<dividend>{DECIMAL}) \s*/\s* (?P<divisor>-?(?:{DECIMAL}))
        | (?P<decimal>{DECIMAL})
          (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?![\w.]) | \s*(?:×|\*|x)\s*10\^\(?(?P<power>-?\d{{1,3}})\)?)?
      )
      (?P<percent>\s*(?:%|percent\b|per\ cent\b))?
      (?:\s+(?P<scale>thousand|million|billion|trillion)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)

COMMANDS = re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|\\[,!;: ]")
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|underline|mathrm|mathbf|operatorname|mbox)\s*\{([^{}]*)\}")
FRACTION = re.compile(r"(\d)?\\[dtc]?frac\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))\s*(?:\{\s*(-?[\d.,]+)\s*\}|(\d))")
UNIT_POWER = re.compile(r"(?<=[A-Za-z])\s*(?:\^\s*\{?[23]\}?|[²³])")
CLAUSE_END = re.compile(r"[,;.]\s|(?<![-+*×/÷=])\s\(")
BEFORE_IN_EXPRESSION = re.compile(r"\\[A-Za-z]|[\^√]\s*$|[A-Za-zπ)}]\s*[/×]\s*$")
AFTER_IN_EXPRESSION = re.compile(r"\s*(?:\\[A-Za-z]|[\^√π]|[-+×/÷]\s*[\d($\\]|\*\s*[\d\\])")
MAX_DIGITS = 300


@dataclass(frozen=True)
class Number:
    """A number and how it was written.

    Attributes:
        value: the number before its percent sign and scale.
        percent: a percent sign, or the word, follows.
        scale: 1,000,000 when the word million follows; 1 without such a word.
    """

    value: Fraction
    percent: bool = False
    scale: int = 1


def parse_number(text: str) -> Number | None:
    """The number that a final answer gives: `$1,234.50`, `-3/4`, `2 1/2`, `50%`, `72 km/h`, `\\frac{1}{2}`, `x = 5`.

    It is the first number, or the first after the last equals sign where the text begins with an equation. None when
    there is none, or it is only a part of an expression, as in `2\\sqrt{3}` or `48 + 24`.
    """
    text = plain_text(text).strip()
    clause = CLAUSE_END.split(text, maxsplit=1)[0]
    if "=" in clause:
        text = clause.rsplit("=", 1)[1]
    for match in NUMBER.finditer(text):
        number = _number(match)
        if number is not None:
            return None if _is_part(text[: match.start()], text[match.end() :]) else number
    return None


def last_number(text: str) -> str | None:
    """The last number in a text, as it is written there without LaTeX; None when there is none."""
    found = [match[0].strip() for match in NUMBER.finditer(plain_text(text)) if _number(match) is not None]
    return found[-1] if found else None


def same_number(answer: Number, reference: Number) -> bool:
    """Whether an answer is the reference, exactly.

    The reference's form decides about percent:

    - a percentage (50%): 50%, 50 and 0.5 are right;
    - a plain number of at least 1 (50): a percent sign in the answer is a unit; 50% is right, 0.5 is not;
    - a number below 1 (0.5) is a share: 0.5 and 50% are right, 0.5% is not.

    A scale word in the answer may be a unit too: `2 million` is right for 2 and for 2,000,000.
    """
    if reference.percent:
        return answer.value == reference.value or (not answer.percent and 100 * answer.value == reference.value)
    wanted = reference.value * reference.scale
    if answer.percent and abs(wanted) < 1:
        return answer.value == 100 * wanted
    return wanted in (answer.value, answer.value * answer.scale)


def plain_text(text: str) -> str:
    """Text without LaTeX spacing, `\\text`, `\\frac` and typographic variants of digits and signs."""
    text = text.translate(CHARACTERS)
    for sign, fraction in VULGAR_FRACTIONS.items():
        if sign in text:
            text = re.sub(rf"(?<=\d)\s*{sign}", f" {fraction}", text).replace(sign, fraction)
    text = re.sub(r"(?<=\d)(?:\{,\}|\\,|\\!,?|[\u00a0\u2009\u202f'’])(?=\d{3}(?!\d))", "", text)
    if "\\" in text:
        text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)", " degrees", text)
        text = (
            text.replace("\\$", "$")
            .replace("\\%", "%")
            .replace("\\times", "×")
            .replace("\\approx", "=")
            .replace("\\cdot", "*")
        )
        text = TEXT_COMMAND.sub(r" \1 ", COMMANDS.sub(" ", text))
        text = FRACTION.sub(_written_fraction, text)
    text = re.sub(r"\^\s*\{\s*(-?\d+)\s*\}", r"^\1", text)
    return UNIT_POWER.sub("", text)


def _is_part(before: str, after: str) -> bool:
    """Whether a number between these texts is a part of a formula or of a tuple."""
    if BEFORE_IN_EXPRESSION.search(before) or AFTER_IN_EXPRESSION.match(after):
        return True
    return before.rstrip().endswith(("(", "[")) and after.lstrip().startswith(",")


def _written_fraction(match: re.Match[str]) -> str:
    """`\\frac{1}{2}` as 1/2, and 2\\frac{1}{2} as the mixed number 2 1/2."""
    before = f"{match[1]} " if match[1] else ""
    return f"{before}{match[2] or match[3]}/{match[4] or match[5]}"


def _number(match: re.Match[str]) -> Number | None:
    """The number of one match; None for what only looks like one."""
    if match["skip"] is not None or len(match[0]) > MAX_DIGITS:
        return None
    try:
        value = _magnitude(match)
    except ZeroDivisionError:
        return None
    negative = (match["sign"] or match["inner_sign"]) == "-"
    scale = SCALES[match["scale"].lower()] if match["scale"] else 1
    return Number(-value if negative else value, match["percent"] is not None, scale)


def _magnitude(match: re.Match[str]) -> Fraction:
    if match["whole"] is not None:
        return Fraction(match["whole"]) + Fraction(int(match["numerator"]), int(match["denominator"]))
    if match["dividend"] is not None:
        return _decimal(match["dividend"]) / _decimal(match["divisor"])
    power = int(match["exponent"] or match["power"] or 0)
    return _decimal(match["decimal"]) * Fraction(10) ** power


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))
