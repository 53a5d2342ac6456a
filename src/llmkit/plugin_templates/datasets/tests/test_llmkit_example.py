import llmkit_example

from llmkit.testing.dataset import DatasetContract


class TestDataset(DatasetContract):
    name = "example_name"
    options = {"size": 50}  # noqa: RUF012
    bad_options = ({"size": 0}, {"largest": -1})


def test_answers_are_sums():
    for index in range(10):
        row = llmkit_example.build(llmkit_example.Config(size=10))[index]
        left, _, total = row.values["answer"].partition(" = ")
        first, _, second = left.partition(" + ")
        assert int(first) + int(second) == int(total)
