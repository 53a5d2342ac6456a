"""How a model itself wants to be drawn from: its `generation_config.json`."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from transformers.utils.hub import cached_file

from llmkit.config.schema import ModelConfig
from llmkit.errors import ModelError
from llmkit.models.loading import checkpoint_path

T = TypeVar("T", int, float)
FILE = "generation_config.json"


@dataclass(frozen=True)
class ModelDefaults:
    """For requests that do not say; the names and meanings are those of SamplingParams.

    Attributes:
        max_new_tokens: None where the model names none; it bounds no request that says how many it wants.
        end_ids: more tokens that end an answer.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    end_ids: tuple[int, ...] = ()
    max_new_tokens: int | None = None


RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "temperature": ("0 or more", lambda value: value >= 0),
    "top_k": ("a whole number, 0 or more", lambda value: value >= 0 and value == int(value)),
    "top_p": ("above 0, and at most 1", lambda value: 0 < value <= 1),
    "min_p": ("0 to 1", lambda value: 0 <= value <= 1),
    "repetition_penalty": ("above 0", lambda value: value > 0),
    "max_new_tokens": ("a whole number, 1 or more", lambda value: value >= 1 and value == int(value)),
}
"""What each value may be."""
WHOLE = ("top_k", "max_new_tokens")


def given(value: T | None, default: T) -> T:
    """A request's value, or the default."""
    return default if value is None else value


def read_defaults(model: ModelConfig, num_ids: int) -> ModelDefaults:
    """The defaults of a model; plain sampling where its files name none.

    Args:
        model: whose directory, or cached repository, to look in.
        num_ids: token ids are below it.
    Raises:
        ModelError: the file cannot be read, or has a value that makes no sense.
    """
    path = cached_file(
        checkpoint_path(model),
        FILE,
        revision=model.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return ModelDefaults()
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
    except (OSError, ValueError) as error:
        raise _refused(path, f"cannot be read: {error}") from error
    if not isinstance(settings, Mapping):
        raise _refused(path, "not a JSON object")
    values: dict[str, Any] = {}
    for name, (meaning, is_fine) in RANGES.items():
        value = settings.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _refused(path, f"{name}={value!r} is no number")
        if not is_fine(value):
            raise _refused(path, f"{name}={value!r}: must be {meaning}")
        values[name] = int(value) if name in WHOLE else float(value)
    return ModelDefaults(**values, end_ids=_end_ids(settings.get("eos_token_id"), path, num_ids))


def _end_ids(value: Any, path: str, num_ids: int) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < num_ids:
            raise _refused(path, f"eos_token_id={value!r}: {token_id!r} is no token of this model (below {num_ids})")
    return tuple(ids)


def _refused(path: str, problem: str) -> ModelError:
    return ModelError(f"{path}: {problem}; mend it, or leave it unread with --set model_defaults=false")
