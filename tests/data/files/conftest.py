"""Writing and reading small files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmkit.data.files.reading import open_path, open_stream
from llmkit.errors import LLMKitError
from llmkit.types import Record, Row


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes | list], Path]:
    """Make a file of text, bytes, or rows for JSON Lines."""

    def make(name: str, content: str | bytes | list) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


@pytest.fixture
def read() -> Callable[..., list[tuple[dict, int]]]:
    """Values and line of every row of files, the same as data set and as stream."""

    def rows(path: Path | str, **options: Any) -> list[tuple[dict, int]]:
        indexed = _all_of_data_set(path, options)
        reader = open_stream(str(path), **options).open()
        assert list(reader) == indexed
        reader.close()
        return [(dict(row.values), row.source.line) for row in indexed]

    return rows


@pytest.fixture
def fault() -> Callable[..., str]:
    """What is said of a bad file behind its name, the same as data set and as stream."""

    def message(path: Path, **options: Any) -> str:
        with pytest.raises(LLMKitError) as indexed:
            _all_of_data_set(path, options)
        with pytest.raises(LLMKitError) as streamed:
            list(open_stream(str(path), **options).open())
        assert str(indexed.value) == str(streamed.value)
        assert str(indexed.value).startswith(str(path))
        assert "\n" not in str(indexed.value)
        return str(indexed.value).removeprefix(str(path))

    return message


def _all_of_data_set(path: Path, options: dict[str, Any]) -> list[Row | Record]:
    dataset = open_path(str(path), **options)
    return [dataset[index] for index in range(len(dataset))]
