from collections.abc import Callable

import pytest

from llmkit.data.codec import TextCodec
from llmkit.data.prefix_property import check_prefix_property


@pytest.mark.parametrize("family", ["chatml", "llama3"])
def test_it_holds_for_templates_that_keep_turns_as_they_are(codec_of: Callable[[str], TextCodec], family: str):
    report = check_prefix_property(codec_of(family))
    assert report.holds
    assert str(report) == "The chat template keeps earlier turns as they are."


@pytest.mark.parametrize(
    ("family", "violation"),
    [
        ("qwen3", "3 turns do not begin as 2 do"),
        ("phi", "2 turns do not begin as 1 do"),
        # GPT-2 reads "\n\n" as one token at the end of a prompt, and as two before a word.
        ("llama3_gpt2", "the last token of the prompt after 1 turns runs into the first one of the answer"),
        ("mistral", "the last token of the prompt after 1 turns runs into the first one of the answer"),
    ],
)
def test_violations_are_told(codec_of: Callable[[str], TextCodec], family: str, violation: str):
    report = check_prefix_property(codec_of(family))
    assert not report.holds
    assert violation in str(report)
