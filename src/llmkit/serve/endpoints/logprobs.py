"""Log-probabilities in the shapes of OpenAI's two APIs."""

from collections.abc import Sequence

from llmkit.engines.inference.contract import TokenScores
from llmkit.serve.schemas.chat import ChoiceLogprobs, TokenLogprob, TopLogprob
from llmkit.serve.schemas.completions import TextLogprobs
from llmkit.serve.token_text import TokenTexts

IMPOSSIBLE = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


def chat_logprobs(
    texts: TokenTexts, token_ids: Sequence[int], scores: Sequence[TokenScores], num_top: int
) -> ChoiceLogprobs:
    """One entry for each token, with the likeliest ones beside it."""
    content = [
        TokenLogprob(
            token=texts.text(token_id),
            logprob=finite(score.logprob),
            bytes=list(texts.utf8(token_id)),
            top_logprobs=[
                TopLogprob(token=texts.text(top_id), logprob=finite(logprob), bytes=list(texts.utf8(top_id)))
                for top_id, logprob in score.top[:num_top]
            ],
        )
        for token_id, score in zip(token_ids, scores, strict=True)
    ]
    return ChoiceLogprobs(content=content)


def text_logprobs(
    texts: TokenTexts, token_ids: Sequence[int], scores: Sequence[TokenScores], num_top: int, offset: int
) -> tuple[TextLogprobs, int]:
    """Lists over the tokens; the token itself is among the likeliest even where it is none of them.

    Args:
        texts: the vocabulary.
        token_ids: T ids.
        scores: T scores.
        num_top: likeliest tokens at each place.
        offset: characters before the first token.
    Returns: the lists, and the characters before what comes next.
    """
    tokens = [texts.text(token_id) for token_id in token_ids]
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    top: list[dict[str, float] | None] = []
    for token, score in zip(tokens, scores, strict=True):
        if score.logprob is None:
            top.append(None)
            continue
        likeliest = {texts.text(top_id): finite(logprob) for top_id, logprob in score.top[:num_top]}
        top.append({**likeliest, token: finite(score.logprob)})
    logprobs = [None if score.logprob is None else finite(score.logprob) for score in scores]
    return TextLogprobs(tokens=tokens, token_logprobs=logprobs, top_logprobs=top, text_offset=offsets), offset


def prompt_logprobs(
    token_ids: Sequence[int], scores: Sequence[TokenScores] | None, num_top: int
) -> list[dict[str, float] | None]:
    """For each token of a prompt, the log-probabilities of it and of the likeliest ones, by token id."""
    return [
        None
        if score.logprob is None
        else {**{str(top): finite(value) for top, value in score.top[:num_top]}, str(token): finite(score.logprob)}
        for token, score in zip(token_ids, scores or (), strict=False)
    ]


def finite(logprob: float | None) -> float:
    """A log-probability that JSON can say."""
    return IMPOSSIBLE if logprob is None or not logprob > IMPOSSIBLE else logprob
