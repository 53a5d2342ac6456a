"""Conversations that went through a table keep what they said."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from llmkit.data.contract import choose_formatter, records
from llmkit.data.files.reading import open_path
from llmkit.data.formatters import auto
from llmkit.types import Record


def tool(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


ROWS = [
    {
        "messages": [{"role": "user", "content": "Rome?"}, call("weather", city="Rome")],
        "tools": [tool("weather", city={"type": "string"})],
    },
    {
        "messages": [{"role": "user", "content": "1+1?"}, call("add", a=1), {"role": "assistant", "content": "2"}],
        "tools": [tool("add", a={"type": "integer"}), tool("now")],
    },
]


def load(path: Path) -> list[Record]:
    dataset = open_path(str(path))
    return list(records(dataset, choose_formatter(auto.build(auto.Config()), dataset)))


def essence(record: Record) -> tuple[Any, ...]:
    return record.messages, json.loads(record.tools or "null"), record.extra


@pytest.fixture
def expected(tmp_path: Path) -> list[Any]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return [essence(record) for record in load(path)]


def test_parquet_with_nested_columns(tmp_path: Path, expected: list[Any]):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist(ROWS)
    # Arrow unites the objects of a column: both schemas now have `city` and `a`.
    assert "city" in str(table.to_pylist()[1]["tools"])
    parquet.write_table(table, tmp_path / "rows.parquet")
    found = [essence(record) for record in load(tmp_path / "rows.parquet")]
    assert [row[0] for row in found] == [row[0] for row in expected]
    # An object without any key cannot be told from a missing one in a table.
    assert [schema["function"]["name"] for schema in found[1][1]] == ["add", "now"]
    assert found[0] == expected[0]
    assert found[1][1][0] == expected[1][1][0]


def test_csv_with_json_in_its_cells(tmp_path: Path, expected: list[Any]):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["messages", "tools", "images", "label"])
        writer.writeheader()
        writer.writerows({key: json.dumps(value) for key, value in row.items()} for row in ROWS)
    loaded = load(tmp_path / "rows.csv")
    assert [essence(record)[:2] for record in loaded] == [row[:2] for row in expected]
    assert {record.label for record in loaded} == {None}
