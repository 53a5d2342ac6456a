import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmkit.config.scalars import read_scalar, write_flow, write_scalar
from llmkit.config.tree import plain
from llmkit.config.yaml_files import parse_yaml

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1.5E+3", 1500.0), (".5", 0.5), ("5.", 5.0), ("-.inf", -math.inf), ("012", 12), ("0o12", 10),
        ("0x1F", 31), ("-7", -7), ("no", "no"), ("on", "on"), ("yes", "yes"), ("True", True), ("FALSE", False),
        ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("12:30:45", "12:30:45"), ("", None), ("~", None),
        ("Null", None), ("e5", "e5"), ("1e", "1e"), (".", "."), ("0b1", "0b1"), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_core_schema(text: str, value: object):
    read = read_scalar(text)
    assert read == value
    assert type(read) is type(value)


def test_nan_is_read_and_written():
    assert math.isnan(read_scalar(write_scalar(math.nan)))  # type: ignore[arg-type]  # the test is that it is a float


@given(VALUES)
def test_flow_text_reads_back(value: object):
    parsed = parse_yaml(f"value: {write_flow(value)}", "file", "file")
    assert parsed is not None
    assert plain(parsed) == {"value": value}


@given(SCALARS)
def test_any_yaml_reader_agrees_on_what_we_write(value: object):
    assert yaml.safe_load(f"value: {write_scalar(value)}") == {"value": value}


@pytest.mark.parametrize(
    "text", ["no", "on", "1e-4", "null", "012", "2024-01-01", "a: b", "# x", "- x", "*a", "", " a"]
)
def test_ambiguous_text_is_quoted(text: str):
    assert write_scalar(text).startswith('"')
    assert yaml.safe_load(write_scalar(text)) == text


def test_small_floats_are_numbers_to_readers_of_yaml_1_1():
    assert write_scalar(1e-5) == "1.0e-05"
    assert yaml.safe_load(write_scalar(1e-5)) == 1e-5
