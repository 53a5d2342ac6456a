import llmkit_example
import pytest

from llmkit.errors import DataError
from llmkit.testing.command import CommandContract


class TestCommand(CommandContract):
    name = "example_name"

    def test_it_counts(self, tmp_path):
        file = tmp_path / "rows.jsonl"
        file.write_text('{"question": "3 + 4?", "answer": "7"}\n{"question": "5 + 6?"}\n')
        done = self.run(str(file))
        assert done.returncode == 0, done.stderr
        assert done.stdout == "2 rows; columns: question, answer\n"


def test_a_broken_line_is_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "3 + 4?"}\n{"question": \n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        llmkit_example.count(file)
