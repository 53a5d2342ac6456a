"""Arrays of a file as token ids and loss weights, with what is wrong with them."""

from collections.abc import Mapping

import numpy as np

from llmkit.data.stores.contract import Tokens
from llmkit.errors import DataError
from llmkit.types import Source

MASKED = -100
"""The label of a token that is not trained."""
LARGEST_ID = int(np.iinfo(np.int32).max)
WEIGHTS = ("labels", "loss_mask", "loss_weights")
"""Names of what may say which tokens are trained: a label for each token, its own id or -100; 0 or 1; a weight."""


def checked(ids: np.ndarray, weights: Mapping[str, np.ndarray], source: Source) -> Tokens:
    """Ids and weights that training can use.

    Args:
        ids: [T] what a file has for ids.
        weights: at most one of `WEIGHTS`, with T values.
        source: where they are, for the error.
    Raises:
        DataError: they are no such thing.
    """
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(f"{source}: token ids must be a row of whole numbers, this is {ids.ndim}-d {ids.dtype}")
    wrong = (ids < 0) | (ids > LARGEST_ID)
    if wrong.any():
        index = int(wrong.argmax())
        raise DataError(
            f"{source}: token {index} has the id {ids[index]}; ids lie between 0 and {LARGEST_ID}. Is the file of "
            "another type (store.dtype), or damaged?"
        )
    if len(weights) > 1:
        raise DataError(f"{source}: {' and '.join(weights)} each say what is trained; keep one of them")
    for name, values in weights.items():
        return Tokens(ids, _loss_weights(ids, name, values, source))
    return Tokens(ids, None)


def _loss_weights(ids: np.ndarray, name: str, values: np.ndarray, source: Source) -> np.ndarray:
    if values.shape != ids.shape:
        raise DataError(f"{source}: {name} has {values.size} values, but there are {len(ids)} tokens")
    if name == "labels":
        wrong = (values != MASKED) & (values != ids)
        what = f"a label is its token's own id or {MASKED}; shift labels back that are shifted by one"
        weights = values != MASKED
    elif name == "loss_mask":
        wrong = (values != 0) & (values != 1)
        what = "it must be 0 or 1"
        weights = values
    else:
        wrong = ~(np.isfinite(values) & (values >= 0))
        what = "a weight is a number from 0"
        weights = values
    if wrong.any():
        index = int(wrong.argmax())
        raise DataError(f"{source}: {name}[{index}] is {values[index]}; {what}")
    return weights.astype(np.float64)
