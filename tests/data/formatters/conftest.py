"""What the tests of formatters share."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llmkit.data.contract import Formatter
from llmkit.errors import DataError
from llmkit.testing.samples import row

ErrorOf = Callable[[Formatter, Mapping[str, Any]], str]


@pytest.fixture(scope="session")
def error_of() -> ErrorOf:
    """What a formatter says of a bad row, which it places at `train.jsonl:17`."""

    def message(formatter: Formatter, values: Mapping[str, Any]) -> str:
        with pytest.raises(DataError) as caught:
            formatter.to_record(row(values, 17, "train.jsonl"))
        assert str(caught.value).startswith("train.jsonl:17: ")
        return str(caught.value).removeprefix("train.jsonl:17: ")

    return message
