"""Weights of characters become weights of tokens."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from llmkit.data.chat.span_weights import token_weights
from llmkit.data.tokenizing.encoding import TokenizedText


def test_a_token_across_a_boundary_has_the_greater_weight():
    # Tokens of "ab", "cd", "e"; the boundary between weights lies in the middle of the second.
    tokens = TokenizedText([1, 2, 3], [0, 2, 4], [2, 4, 5])
    assert token_weights(tokens, 0.0, [((3, 5), 0.5)]) == [0.0, 0.5, 0.5]
    assert token_weights(tokens, 1.0, [((3, 5), 0.5)]) == [1.0, 1.0, 0.5]
    assert token_weights(tokens, 0.0, [((0, 3), 2.0), ((3, 4), 0.5)]) == [2.0, 2.0, 0.0]


def test_tokens_that_share_a_character_share_its_weight_and_one_of_nothing_has_none():
    # Three tokens of one character, and one that covers nothing, as the marks before a first word do.
    tokens = TokenizedText([1, 2, 3, 4, 5], [0, 0, 1, 1, 1], [0, 1, 2, 2, 2], is_regular=False)
    assert token_weights(tokens, 0.0, [((0, 2), 1.0)]) == [0.0, 1.0, 1.0, 1.0, 1.0]


SPANS = st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from([0.0, 0.5, 1.0, 2.0]))


@given(
    lengths=st.lists(st.integers(1, 4), max_size=12),
    spans=st.lists(SPANS, max_size=5),
    default=st.sampled_from([0.0, 1.0]),
)
def test_weights_are_the_greatest_of_the_characters(lengths: list[int], spans: list, default: float):
    ends = list(accumulate(lengths))
    starts = [0, *ends][: len(ends)]
    length = sum(lengths)
    sound = [((min(a, b, length), min(max(a, b), length)), weight) for a, b, weight in spans]
    characters = [default] * length
    for (start, end), weight in sound:
        characters[start:end] = [weight] * (end - start)
    expected = [max(characters[start:end]) for start, end in zip(starts, ends, strict=True)]
    for is_regular in (True, False):
        tokens = TokenizedText([0] * len(ends), starts, ends, is_regular)
        assert token_weights(tokens, default, sound) == expected
