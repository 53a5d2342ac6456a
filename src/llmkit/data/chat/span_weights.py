"""Loss weights of tokens from weights of characters."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from llmkit.data.chat.marks import Span
from llmkit.data.tokenizing.encoding import TokenizedText


def token_weights(tokens: TokenizedText, default: float, spans: Sequence[tuple[Span, float]]) -> list[float]:
    """The weight of each token: the greatest among the characters that it covers, 0 for one that covers none.

    Args:
        tokens: of a text.
        default: weight of the text's characters.
        spans: characters with another weight; a later one counts where several overlap.
    """
    starts, ends = tokens.starts, tokens.ends
    pieces = _pieces(max(ends, default=0), default, spans)
    if not tokens.is_regular:
        by_character = [weight for (begin, end), weight in pieces for _ in range(begin, end)]
        return [max(by_character[start:end], default=0.0) for start, end in zip(starts, ends, strict=True)]
    weights = [0.0] * len(starts)
    for (begin, end), weight in pieces:
        if not weight:
            continue
        first, after = bisect_right(ends, begin), bisect_left(starts, end)
        # Tokens that began before this piece may have a greater weight already.
        while first < after and starts[first] < begin:
            weights[first] = max(weights[first], weight)
            first += 1
        weights[first:after] = [weight] * (after - first)
    return weights


def _pieces(length: int, default: float, spans: Sequence[tuple[Span, float]]) -> list[tuple[Span, float]]:
    """A text of `length` characters as adjacent pieces of one weight each."""
    bounds = sorted({0, length, *(bound for span, _ in spans for bound in span)})
    weights = [default] * (len(bounds) - 1)
    for (begin, end), weight in spans:
        first, after = bisect_left(bounds, begin), bisect_left(bounds, end)
        weights[first:after] = [weight] * (after - first)
    return list(zip(pairwise(bounds), weights, strict=True))
