import llmkit_example
import pytest

from llmkit.errors import DataError
from llmkit.testing.store import StoreContract


class TestStore(StoreContract):
    name = "example_name"


def test_a_word_that_is_no_number_is_named_with_its_line(tmp_path):
    (tmp_path / "corpus.numbers").write_text("1:1.0 2:0.5\n3:1.0 four:1.0\nend")
    with pytest.raises(DataError, match=r"corpus\.numbers:2.*four"):
        llmkit_example.build(llmkit_example.Config()).open(tmp_path / "corpus.numbers")
