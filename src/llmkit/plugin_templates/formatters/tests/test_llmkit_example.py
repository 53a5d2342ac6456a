import llmkit_example

from llmkit.testing.formatter import FormatterContract
from llmkit.testing.samples import row


class TestFormatter(FormatterContract):
    name = "example_name"
    rows = (
        {"request": "Say hello.", "reply": "Hello!"},
        {"request": "What is 3 + 4?", "reply": "7", "topic": "sums"},
    )
    bad_rows = ({"request": "Say hello."}, {"request": "Say hello.", "reply": 5})


def test_the_reply_is_what_rewards_compare_with():
    record = llmkit_example.build(llmkit_example.Config()).to_record(row({"request": "What is 3 + 4?", "reply": "7"}))
    assert record.answer == "7"
