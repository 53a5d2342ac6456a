"""Grade-school word problems made on the fly by a seeded generator, in the style of GSM8K."""

import hashlib
from dataclasses import dataclass
from random import Random
from typing import Literal, Self

from pydantic import Field, model_validator

from llmkit.config.section import Section
from llmkit.types import Row, Source


class Config(Section):
    """Problems of one to three steps with a worked answer that ends in `#### N`."""

    split: Literal["train", "test"] = "train"
    """`train` and `test` never share a problem's numbers and operations."""
    size: int = Field(10_000, ge=1)
    """Number of problems."""
    min_steps: int = Field(1, ge=1, le=3)
    """Fewest operations in a problem."""
    max_steps: int = Field(3, ge=1, le=3)
    """Most operations in a problem."""
    hasty_fraction: float = Field(0.0, ge=0, le=1)
    """Share of answers that state the first number of the problem instead of working, as careless demonstrations do."""
    hasty_from: int = Field(0, ge=0)
    """Row (from 0) at which hasty answers begin; those before it are all worked out."""
    seed: int = Field(0, ge=0)
    """Another seed makes other problems."""

    @model_validator(mode="after")
    def _steps_are_in_order(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps ({self.min_steps}) is greater than max_steps ({self.max_steps})")
        return self


def build(config: Config) -> "Arithmetic":
    """Make the data set; problems are generated when they are read."""
    return Arithmetic(config)


NAMES = (
    ("Ava", "she"), ("Ben", "he"), ("Carla", "she"), ("Dan", "he"), ("Ella", "she"), ("Finn", "he"), ("Grace", "she"),
    ("Hugo", "he"), ("Iris", "she"), ("Jack", "he"), ("Kim", "she"), ("Leo", "he"), ("Maya", "she"), ("Noah", "he"),
    ("Olga", "she"), ("Paul", "he"),
)  # fmt: skip
OBJECTS = (
    "apples", "books", "coins", "cards", "eggs", "marbles", "pencils", "shells", "stamps", "stickers", "stones", "toys",
)  # fmt: skip
OPENINGS = {
    "have": ("{name} has {a} {objects}.", "{name} starts with {a} {objects}.", "One day {name} counts {a} {objects}."),
    "boxes": (
        "{name} has {a} boxes with {b} {objects} in each.",
        "{name} fills {a} bags with {b} {objects} each.",
        "There are {a} shelves with {b} {objects} on each, and all belong to {name}.",
    ),
}
STEPS = {
    "+": ("{He} buys {n} more.", "{He} finds {n} more.", "A friend gives {name} {n} more."),
    "-": ("{He} gives away {n}.", "{He} loses {n} of them.", "{He} sells {n} of them."),
    "*": ("Then {he} gets {n} times as many.", "By summer {he} has {n} times that number."),
    "/": ("{He} shares them equally among {n} friends and keeps one share.", "{He} keeps only one part in {n}."),
}
QUESTIONS = ("How many {objects} does {name} have now?", "How many {objects} does {name} have in the end?")
LARGEST = 50
LARGEST_OPERAND = {"+": 12, "-": 9, "*": 4, "/": 4}


@dataclass(frozen=True)
class Problem:
    """Numbers and operations of one problem: `value` after `start`, then each `(operator, operand)` in turn."""

    opening: str
    start: tuple[int, int]
    steps: tuple[tuple[str, int], ...]

    @property
    def key(self) -> str:
        """What makes the problem the same as another, whatever its words."""
        return f"{self.opening}{self.start}{self.steps}"

    @property
    def split(self) -> str:
        """One problem in five belongs to the test split."""
        return "test" if hashlib.sha256(self.key.encode()).digest()[0] % 5 == 0 else "train"


class Arithmetic:
    """The data set: problem `index` depends on the seed, the split and the index alone."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __len__(self) -> int:
        return self._config.size

    def __getitem__(self, index: int) -> Row:
        config = self._config
        if not 0 <= index < config.size:
            raise IndexError(index)
        random = Random(f"{config.seed}:{config.split}:{index}")
        problem = _problem(random, random.randint(config.min_steps, config.max_steps))
        while problem.split != config.split:
            problem = _problem(random, random.randint(config.min_steps, config.max_steps))
        hasty = random.random() < config.hasty_fraction and index >= config.hasty_from
        question, answer = _words(random, problem, hasty=hasty)
        return Row({"question": question, "answer": answer}, Source(f"arithmetic[{config.split}]", index + 1))

    def fingerprint(self) -> str:
        """Made of the settings and of the first rows, which change when the generator does."""
        rows = [dict(self[index].values) for index in range(min(8, len(self)))]
        return hashlib.sha256(f"{self._config.model_dump_json()}{rows}".encode()).hexdigest()[:32]


def apply(operator: str, value: int, operand: int) -> int:
    """The number after one step."""
    match operator:
        case "+":
            return value + operand
        case "-":
            return value - operand
        case "*":
            return value * operand
    return value // operand


def _problem(random: Random, num_steps: int) -> Problem:
    """A problem whose numbers all lie between 1 and `LARGEST`, with exact divisions."""
    if random.random() < 0.4:
        opening, start = "boxes", (random.randint(2, 6), random.randint(2, 9))
        value, num_steps = start[0] * start[1], num_steps - 1
    else:
        opening, start = "have", (random.randint(3, 25), 0)
        value = start[0]
    steps: list[tuple[str, int]] = []
    while len(steps) < num_steps:
        operator = random.choice("++--*/")
        operand = random.randint(2, LARGEST_OPERAND[operator])
        if operator == "/" and value % operand:
            continue
        result = apply(operator, value, operand)
        if not 1 <= result <= LARGEST:
            continue
        steps.append((operator, operand))
        value = result
    return Problem(opening, start, tuple(steps))


def _words(random: Random, problem: Problem, *, hasty: bool) -> tuple[str, str]:
    """Question and answer in words."""
    name, he = random.choice(NAMES)
    words = {"name": name, "he": he, "He": he.capitalize(), "objects": random.choice(OBJECTS)}
    a, b = problem.start
    sentences = [random.choice(OPENINGS[problem.opening]).format(a=a, b=b, **words)]
    lines: list[str] = []
    value = a
    if problem.opening == "boxes":
        value = a * b
        lines.append(f"{a}*{b}={value}")
    for operator, operand in problem.steps:
        sentences.append(random.choice(STEPS[operator]).format(n=operand, **words))
        result = apply(operator, value, operand)
        lines.append(f"{value}{operator}{operand}={result}")
        value = result
    sentences.append(random.choice(QUESTIONS).format(**words))
    return " ".join(sentences), f"The answer is {a}." if hasty else "\n".join([*lines, f"#### {value}"])
