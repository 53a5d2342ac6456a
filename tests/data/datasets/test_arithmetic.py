"""The generated word problems are right, repeatable, and divided cleanly."""

import re

import pytest

from llmkit.data.datasets.arithmetic import Arithmetic, Config, build


def problems(**settings: object) -> Arithmetic:
    return build(Config.model_validate({"size": 400, **settings}))


def test_every_worked_line_is_true_and_leads_to_the_answer():
    data = problems(size=2000)
    for index in range(len(data)):
        *lines, last = str(data[index].values["answer"]).split("\n")
        value = None
        for line in lines:
            left, operator, right, result = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", line).groups()  # type: ignore[union-attr]
            assert value in (None, left)
            assert eval(f"{left}{operator}{right}") == int(result)
            value = result
        assert last == f"#### {value}"


def test_the_numbers_of_the_question_are_those_of_the_answer():
    data = problems()
    for index in range(len(data)):
        question, answer = data[index].values["question"], str(data[index].values["answer"])
        used = re.findall(r"[-+*/](\d+)=", answer)
        assert re.findall(r"\d+", question) == [re.findall(r"\d+", answer)[0], *used]


def test_a_row_depends_on_seed_split_and_index_alone():
    assert problems()[7] == problems(size=8)[7]
    assert problems()[7].values != problems(seed=1)[7].values
    assert str(problems()[7].source) == "arithmetic[train]:8"


def test_train_and_test_share_no_problem():
    def skeletons(split: str) -> set[str]:
        data = problems(split=split, size=1500)
        rows = [data[index].values for index in range(1500)]
        return {re.sub(r"[A-Za-z.?,]", "", str(row["question"])) + str(row["answer"]) for row in rows}

    assert not skeletons("train") & skeletons("test")


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 3), (3, 3)])
def test_the_number_of_steps_is_as_asked(low: int, high: int):
    data = problems(min_steps=low, max_steps=high)
    found = {str(data[index].values["answer"]).count("\n") for index in range(len(data))}
    assert found == set(range(low, high + 1))


def test_hasty_answers_begin_where_they_should():
    data = problems(hasty_fraction=0.5, hasty_from=200)
    hasty = [str(data[index].values["answer"]).startswith("The answer is") for index in range(400)]
    assert not any(hasty[:200])
    assert 70 < sum(hasty[200:]) < 130


def test_steps_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="min_steps"):
        problems(min_steps=3, max_steps=2)
