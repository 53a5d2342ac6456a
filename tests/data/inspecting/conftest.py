"""A tokenizer with one token for each byte, so that tokens can be counted by hand."""

import pytest

from llmkit.data.codec import TextCodec
from llmkit.testing.tiny import tiny_codec


@pytest.fixture(scope="session")
def codec() -> TextCodec:
    """ChatML; `<|im_start|>` and `<|im_end|>` are a token each."""
    return tiny_codec()
