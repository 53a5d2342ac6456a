import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.config.references import Expander, escape, variable_of
from llmkit.config.shape import MISSING
from llmkit.config.tree import Origin, from_plain, plain
from llmkit.errors import ConfigError

TEXTS = st.text(st.sampled_from("${}ax:-. env"))


def expanded(tree: dict, **environ: str) -> dict:
    expander = Expander(from_plain(tree, Origin("file", "f:1:1")), lambda path: MISSING, environ)
    result = plain(expander.expand())
    assert not expander.problems, expander.problems
    return result


def problem(tree: dict, **environ: str) -> list[str]:
    expander = Expander(from_plain(tree, Origin("file", "f:1:1")), lambda path: MISSING, environ)
    expander.expand()
    return [text for _, _, text in expander.problems]


def test_whole_references_keep_the_type():
    tree = {
        "a": {"n": 3, "l": [1, 2], "x": None},
        "n": "${a.n}",
        "l": "${a.l}",
        "item": "${a.l.1}",
        "x": "${a.x}",
        "s": "${a}",
    }
    assert expanded(tree) == {**tree, "n": 3, "l": [1, 2], "item": 2, "x": None, "s": tree["a"]}


def test_references_inside_text():
    assert expanded({"a": 1e-5, "b": True, "c": "x", "t": "${a}-${b}-${c}-${env:U}"}, U="u")["t"] == "1.0e-05-true-x-u"


def test_environment_variables():
    tree = {"a": "${env:A}", "b": "${env:B:-fall back}", "c": "${env:C:-}", "d": "${env:D:-7}"}
    assert expanded(tree, A="12", D="") == {"a": 12, "b": "fall back", "c": None, "d": 7}


def test_references_to_references_and_into_them():
    tree = {"a": "${b}", "b": "${c}", "c": {"d": "$${literal}", "e": 1}, "into": "${a.d}", "one": "${a.e}"}
    result = expanded(tree)
    assert result["a"] == {"d": "${literal}", "e": 1}
    assert result["into"] == "${literal}"
    assert result["one"] == 1


@given(TEXTS)
def test_escaped_text_is_literal(text):
    assert expanded({"a": escape(text)}) == {"a": text}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": "${b}"}, "${b}: no key b has a value"),
        ({"a": "${a}"}, "${a} refers to itself"),
        ({"a": {"b": "${a}"}}, "${a} refers to itself"),
        ({"a": "${env:NOBODY}"}, "the environment variable NOBODY is not set"),
        ({"a": "${env:}"}, "the form is ${env:NAME}"),
        ({"a": "${now()}x y}"}, "is not a reference"),
        ({"a": "${b"}, "has a '${' without its '}'"),
        ({"a": "x ${b}", "b": {"c": 1}}, "${b} is a section, not text"),
        ({"a": "x ${b}", "b": [1]}, "${b} is a list, not text"),
    ],
)
def test_problems(tree, message):
    (text,) = problem(tree)
    assert message in text


def test_rings_name_the_whole_chain():
    texts = problem({"a": "${b}", "b": "x${c}", "c": "${a}"})
    assert texts[0] == "the references form a ring: a -> b -> c -> a"
    assert len(texts) == 3
    assert "a ring: x -> y.z -> x" in problem({"x": "${y}", "y": {"z": "${x}"}})[0]


def test_variable_of():
    assert variable_of("${env:TOKEN}") == variable_of("${env:TOKEN:-x}") == "TOKEN"
    assert variable_of("x${env:TOKEN}") is variable_of("${a.b}") is variable_of("$${env:TOKEN}") is None


def test_overrides_are_seen_through_references(paint, file):
    low = file("low.yaml", "seed: 1\nbrush: {strokes: '${seed}'}\n")
    assert paint("seed=9", files=[low]).run.brush.strokes == 9


def test_references_reach_defaults_and_plugins(paint):
    run = paint("brush.strokes=${canvas.threads}", "title=${brush.style} ${paint.name}", "second=${canvas}").run
    assert run.brush.strokes == 20
    assert run.title == "dry oil"
    assert run.second.name == "linen"


def test_a_plugin_named_by_a_reference(paint):
    resolved = paint("paint=${env:PAINT}", "seed=${paint.sheets}", environ={"PAINT": "water"})
    assert (resolved.run.paint.name, resolved.run.seed) == ("water", 2)
    assert paint("paint.name=${title}", "title=water").run.paint.name == "water"


def test_variables_fit_the_type_of_the_field(paint):
    resolved = paint("seed=${env:N}", "title=${env:N}", environ={"N": "007"})
    assert (resolved.run.seed, resolved.run.title) == (7, "007")


def test_every_faulty_reference_is_told_once(paint):
    with pytest.raises(ConfigError) as caught:
        paint("seed=${nobody}", "title=${env:NOBODY}", "paint=${env:NOBODY}")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith(
        "--set title=${env:NOBODY}: the environment variable NOBODY is not set; set it, or write"
    )
