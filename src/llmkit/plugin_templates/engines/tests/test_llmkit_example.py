import asyncio
import math

from llmkit_example.engine import Engine

from llmkit.testing.engine import EngineContract
from llmkit.types import SamplingParams


class TestEngine(EngineContract):
    name = "example_name"
    too_long = 4096


def test_a_token_is_as_likely_as_it_is_frequent():
    completion = asyncio.run(Engine(4096).generate([5, 5, 5, 9], SamplingParams(max_new_tokens=20, seed=1)))
    expected = {5: math.log(3 / 4), 9: math.log(1 / 4)}
    assert completion.logprobs == [expected[token] for token in completion.token_ids]
