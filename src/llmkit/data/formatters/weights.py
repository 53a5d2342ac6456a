"""Loss weights, in every spelling that tools use."""

import math
from collections.abc import Mapping
from typing import Any

from llmkit.data.formatters.columns import Place
from llmkit.errors import DataError

WEIGHT_KEYS = ("weight", "loss", "loss_weight", "loss_scale", "train", "trainable")
"""Every spelling of the loss weight of a message, or of a part of one."""


def weight_of(item: Mapping[str, Any], place: Place) -> float | None:
    """The loss weight of a message or part in any spelling; None when it has none.

    Raises:
        DataError: it is not a number from 0, or two spellings disagree.
    """
    found = {key: item[key] for key in WEIGHT_KEYS if item.get(key) is not None}
    if not found:
        return None
    weights = {_weight(value, place.of(key)) for key, value in found.items()}
    if len(weights) > 1:
        shown = ", ".join(f"{key}={value}" for key, value in found.items())
        raise DataError(f"{place} has weights that disagree: {shown}; keep one of them")
    return weights.pop()


def _weight(value: Any, place: Place) -> float:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return float(value.strip().lower() == "true")
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise DataError(f"{place} is {value!r}; a weight is true, false or a number from 0")
    return weight
