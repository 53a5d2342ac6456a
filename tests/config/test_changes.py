from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.config.changes import environment_changes, option_changes, set_change
from llmkit.config.scalars import write_flow
from llmkit.config.tree import plain
from llmkit.errors import ConfigError

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


def value_of(text: str):
    change = set_change(f"a.b={text}")
    assert change.path == ("a", "b")
    assert change.node is not None
    return plain(change.node)


@given(st.lists(NAMES, min_size=1, max_size=4), VALUES)
def test_what_is_written_for_set_is_read_back(path, value):
    change = set_change(f"{'.'.join(path)}={write_flow(value)}")
    assert change.path == tuple(path)
    assert change.node is not None
    assert plain(change.node) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("no", "no"), ("true", True), ("", None), ('""', ""), ("[1, 2]", [1, 2]),
        ("{k: [1]}", {"k": [1]}),
        ("a=b", "a=b"), ("*.jsonl", "*.jsonl"), ("Q: {x}", "Q: {x}"), ("#x", "#x"), ("a #b", "a #b"), ("@x", "@x"),
        ("- x", "- x"), ("${a.b}", "${a.b}"), ("'1'", "1"), ("  7  ", 7), ("C:\\data", "C:\\data"),
    ],
)  # fmt: skip
def test_values_of_set(text: str, value: object):
    assert value_of(text) == value


def test_reset():
    change = set_change("~optim.learning_rate")
    assert change.is_reset
    assert change.path == ("optim", "learning_rate")


@pytest.mark.parametrize("text", ["", "optim", "=3", "a..b=1", ".a=1", "a.=1", "a b=1", "~", "~a=1", "~a.", "a[0]=1"])
def test_other_forms_are_refused_with_the_form(text: str):
    with pytest.raises(ConfigError, match="the form is"):
        set_change(text)


@pytest.mark.parametrize("text", ["a=[1, 2", 'a="x', "a={k: 1", "a=[*x]"])
def test_broken_values_say_where(text: str):
    with pytest.raises(ConfigError, match=r"^--set a=.*: the value at character \d+") as caught:
        set_change(text)
    assert "\n" not in str(caught.value)


def test_half_a_character_is_refused():
    with pytest.raises(ConfigError, match="--set a: the value is not UTF-8"):
        set_change("a=\udcff")


def test_environment_names_are_paths_in_any_case():
    changes = environment_changes(
        {"LLMKIT__OPTIM__LEARNING_RATE": "1e-6", "llmkit__Seed": "3", "LLMKIT_HOME": "x", "A": "b"}
    )
    assert [(change.path, plain(change.node)) for change in changes if change.node] == [
        (("seed",), 3),
        (("optim", "learning_rate"), 1e-6),
    ]
    assert changes[1].origin.place == "LLMKIT__OPTIM__LEARNING_RATE"


@pytest.mark.parametrize("name", ["LLMKIT__", "LLMKIT__A____B", "LLMKIT__A__"])
def test_environment_names_without_a_key(name: str):
    with pytest.raises(ConfigError, match=f"^{name}: no key between the underscores"):
        environment_changes({name: "1"})


def test_options_that_were_not_given_say_nothing():
    changes = option_changes({
        "seed": ("--seed", None), "model.path": ("--model", Path("m")), "trackers": ("--tracker", ("a", "b"))
    })  # fmt: skip
    assert [(change.path, plain(change.node), change.origin.place) for change in changes if change.node] == [
        (("model", "path"), "m", "--model"),
        (("trackers",), ["a", "b"], "--tracker"),
    ]


def test_text_of_options_is_not_read_as_yaml():
    (change,) = option_changes({"model.path": ("--model", "123")})
    assert change.node is not None
    assert change.node.value == "123"
