"""What becomes of samples that are too long, or of which nothing would be trained."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from llmkit.config.schema import DataConfig
from llmkit.data.contract import Encoded, Outcome
from llmkit.errors import DataError
from llmkit.types import PreferencePair, Sample

T = TypeVar("T")
NO_ANSWER = "it has no assistant message with text, or every weight is 0"


def fit_sample(sample: Sample, config: DataConfig) -> Encoded[Sample]:
    """A sample within `max_length`, by the policies `overlength` and `untrained`.

    `split` makes consecutive windows of `max_length` tokens; the first token of each has nothing before it and carries
    no loss. A window without any loss is left out, which `Encoded.num_tokens` shows: it counts the windows that stay.

    Raises:
        DataError: names the row: it is too long, or trains no token, and the policy is `error`.
    """
    if not is_trained(sample):
        return _untrained(sample, NO_ANSWER, config)
    limit = config.max_length
    length = len(sample.token_ids)
    if length <= limit:
        return encoded([sample], [sample], "kept")
    if config.overlength == "error":
        raise too_long(sample, length, limit)
    if config.overlength == "drop":
        return Encoded((), "dropped")
    if config.overlength == "split":
        return _windows(sample, config)
    right = config.overlength == "truncate_right"
    cut = window(sample, 0, limit) if right else window(sample, length - limit, length)
    if not is_trained(cut):
        which = "first" if right else "last"
        return _untrained(sample, f"none of its {which} data.max_length={limit} tokens is trained; raise it", config)
    return encoded([cut], [cut], "truncated")


def fit_pair(pair: PreferencePair, config: DataConfig) -> Encoded[PreferencePair]:
    """A pair within `max_length`, both sides of it cut in the same way: the prompt stays the same for both.

    Raises:
        DataError: names the row: a side is too long, or trains no token, and the policy is `error`; or the policy
            cannot be followed without changing what is compared.
    """
    sides = (pair.chosen, pair.rejected)
    if not all(map(is_trained, sides)):
        return _untrained(pair.chosen, "an answer has no text, or every weight of it is 0", config)
    limit = config.max_length
    longest = max(len(side.token_ids) for side in sides)
    if longest <= limit:
        return encoded([pair], sides, "kept")
    if config.overlength == "error":
        raise too_long(pair.chosen, longest, limit)
    if config.overlength == "drop":
        return Encoded((), "dropped")
    if config.overlength == "split":
        raise DataError(
            f"{pair.chosen.source}: {longest} tokens, more than data.max_length={limit}, and a pair cannot be divided; "
            "choose drop, truncate_left or truncate_right with --set data.overlength=..."
        )
    if config.overlength == "truncate_right":
        chosen, rejected = (window(side, 0, limit) for side in sides)
    else:
        start = longest - limit
        if start >= _shared_prompt(pair):
            raise DataError(
                f"{pair.chosen.source}: {longest} tokens, more than data.max_length={limit}, and the prompt alone is "
                "too short to take that from; raise it, or choose --set data.overlength=truncate_right"
            )
        chosen, rejected = (window(side, start, len(side.token_ids)) for side in sides)
    if not (is_trained(chosen) and is_trained(rejected)):
        reason = f"the prompt fills data.max_length={limit} tokens; raise it, or choose truncate_left"
        return _untrained(pair.chosen, reason, config)
    return encoded([PreferencePair(chosen, rejected)], (chosen, rejected), "truncated")


def encoded(items: Sequence[T], samples: Sequence[Sample], outcome: Outcome) -> Encoded[T]:
    """Items with the count of their tokens, which are those of `samples`."""
    num_tokens = sum(len(sample.token_ids) for sample in samples)
    num_trained = sum(len(sample.loss_weights) - sample.loss_weights.count(0.0) for sample in samples)
    return Encoded(tuple(items), outcome, num_tokens, num_trained)


def is_trained(sample: Sample) -> bool:
    """Whether any token carries loss."""
    return any(sample.loss_weights)


def window(sample: Sample, start: int, end: int) -> Sample:
    """The tokens `[start, end)`; the first of them carries no loss."""
    weights = sample.loss_weights[start:end]
    weights[:1] = [0.0]
    return replace(sample, token_ids=sample.token_ids[start:end], loss_weights=weights)


def too_long(sample: Sample, length: int, limit: int) -> DataError:
    """The error of a row that is too long."""
    return DataError(
        f"{sample.source}: {length} tokens, more than data.max_length={limit}. Raise it, or choose "
        "--set data.overlength=drop (or truncate_right, truncate_left, split)"
    )


def _windows(sample: Sample, config: DataConfig) -> Encoded[Sample]:
    limit = config.max_length
    windows = [window(sample, start, start + limit) for start in range(0, len(sample.token_ids), limit)]
    trained = [one for one in windows if is_trained(one)]
    if not trained:
        return _untrained(sample, f"each of its trained tokens begins a window of data.max_length={limit}", config)
    return encoded(trained, trained, "split")


def _shared_prompt(pair: PreferencePair) -> int:
    """Number of tokens that both sides begin with and that carry no loss in either."""
    chosen, rejected = pair.chosen, pair.rejected
    tokens = zip(chosen.token_ids, rejected.token_ids, chosen.loss_weights, rejected.loss_weights, strict=False)
    count = 0
    for ours, theirs, our_weight, their_weight in tokens:
        if ours != theirs or our_weight or their_weight:
            break
        count += 1
    return count


def _untrained(sample: Sample, reason: str, config: DataConfig) -> Encoded:
    if config.untrained == "drop":
        return Encoded((), "untrained")
    raise DataError(
        f"{sample.source}: no token of this row would be trained: {reason}; or leave such rows out with "
        "--set data.untrained=drop"
    )
