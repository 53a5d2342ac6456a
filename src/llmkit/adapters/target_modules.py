"""Which modules of a model an adapter's options name; what the model does not have is refused with a suggestion."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from llmkit.errors import ConfigError

ALL_LINEAR = "all-linear"


def resolve_targets(model: nn.Module, targets: str | list[str]) -> str | list[str]:
    """`all-linear` as names; anything else as it is.

    Last parts of names stand for all modules that end in them; where the output head has such a name too, full names.
    """
    if targets != ALL_LINEAR:
        return targets
    full = linear_modules(model)
    short = sorted({_last(name) for name in full})
    others = {_last(name) for name, _ in model.named_modules() if name not in full}
    return full if others.intersection(short) else short


def linear_modules(model: nn.Module) -> list[str]:
    """Full names of the linear layers, the output head left out."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return [name for name, module in model.named_modules() if is_linear(module) and module is not head]


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a plain matrix product."""
    return isinstance(module, nn.Linear | Conv1D)


def adapted_modules(model: nn.Module, config: Any) -> dict[str, nn.Module]:
    """The modules that an adapter's options choose, by their full names."""
    targets = resolve_targets(model, _listed(config.target_modules))
    excluded = getattr(config, "exclude_modules", None)
    layers = getattr(config, "layers_to_transform", None)
    return {
        name: module
        for name, module in model.named_modules()
        if matches(name, targets)
        and not (excluded and matches(name, _listed(excluded)))
        and (layers is None or _layer(name) in layers)
    }


def matches(name: str, chosen: str | Iterable[str]) -> bool:
    """Whether a full name is one of `chosen`, ends in one, or fits the whole regular expression."""
    if isinstance(chosen, str):
        return re.fullmatch(chosen, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in chosen)


def check_targets(model: nn.Module, config: Any) -> None:
    """Refuse options that name what the model does not have.

    Raises:
        ConfigError: names the option, close names, and what there is.
    """
    names = [name for name, _ in model.named_modules() if name]
    for setting in ("target_modules", "exclude_modules", "modules_to_save", "feedforward_modules"):
        chosen = getattr(config, setting, None)
        if chosen and chosen != ALL_LINEAR:
            _check_names(setting, chosen, names, model)
    _check_layers(getattr(config, "layers_to_transform", None), getattr(config, "target_modules", ()), model)
    if not hasattr(config, "target_modules"):
        return
    adapted = adapted_modules(model, config)
    if not adapted:
        raise ConfigError(
            "adapter.exclude_modules and adapter.layers_to_transform leave none of adapter.target_modules; "
            f"linear layers of this model: {', '.join(_short_names(model))}"
        )
    for setting in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, setting, None) or {}:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in adapted):
                raise ConfigError(
                    f"adapter.{setting}: '{pattern}' fits none of the adapted modules, for example "
                    f"{next(iter(adapted))}"
                )


def _check_names(setting: str, chosen: Sequence[str] | str, names: Sequence[str], model: nn.Module) -> None:
    if isinstance(chosen, str):
        try:
            found = any(re.fullmatch(chosen, name) for name in names)
        except re.error as error:
            raise ConfigError(f"adapter.{setting}={chosen}: not a regular expression: {error}") from None
        missing = [] if found else [chosen]
    else:
        missing = [one for one in chosen if not any(matches(name, [one]) for name in names)]
    if not missing:
        return
    known = _short_names(model) if setting != "modules_to_save" else sorted({_last(name) for name in names})
    close = get_close_matches(missing[0], known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    way = "" if isinstance(chosen, list | tuple) else " (a text is a regular expression for full names)"
    raise ConfigError(
        f"adapter.{setting}: this model has no module '{missing[0]}'{way}.{hint} "
        f"Linear layers of this model: {', '.join(_short_names(model))}"
    )


def _check_layers(layers: Sequence[int] | None, targets: Any, model: nn.Module) -> None:
    if layers is None:
        return
    if isinstance(targets, str) and targets != ALL_LINEAR:
        raise ConfigError(
            "adapter.layers_to_transform has no effect on a regular expression: say the layers in "
            "adapter.target_modules, or give it names"
        )
    count = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator] - a transformers model
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong:
        raise ConfigError(
            f"adapter.layers_to_transform={list(layers)}: there is no layer {wrong[0]}; this model has {count}, from 0 "
            f"to {count - 1}"
        )


def _layer(name: str) -> int | None:
    """Number of the layer that a module lies in: the first number in its name."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


def _short_names(model: nn.Module) -> list[str]:
    return sorted({_last(name) for name in linear_modules(model)})


def _listed(names: Sequence[str] | str) -> str | list[str]:
    return names if isinstance(names, str) else list(names)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
