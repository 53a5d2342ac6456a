"""Full fine-tuning: the model's own weights train, all of them or all but those that are frozen by name."""

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.adapters.contract import Adapter, AdapterContext, Facts
from llmkit.config.section import Section
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

REGEX = "re:"


class Config(Section):
    """Which weights stay as they are."""

    freeze: tuple[str, ...] = ()
    """Weights that do not train, by patterns for their full names: `model.embed_tokens.*`, `*.layers.[0-7].*`, or after
    `re:` a regular expression."""
    freeze_except: tuple[str, ...] = ()
    """Of the weights that `freeze` names, those that train all the same: with `freeze=["*"]`, all that trains."""


def build(config: Config) -> "Full":
    """Make the adapter."""
    return Full(config)


class Full(Adapter):
    """Trains the model itself."""

    facts = Facts(keeps_base=False, trains_new_tokens=True)

    def __init__(self, config: Config) -> None:
        self._config = config
        self._adds_tokens = False

    def begin(self, context: AdapterContext) -> None:
        """Refuse weights of 4 or 8 bits, and exceptions of nothing."""
        if context.quantization != "none":
            raise ConfigError(
                f"adapter.name=full cannot train weights of model.quantization={context.quantization}; use "
                "adapter.name=lora, or model.quantization=none"
            )
        if self._config.freeze_except and not self._config.freeze:
            raise ConfigError('adapter.freeze_except has no effect without adapter.freeze; for example freeze=["*"]')
        self._adds_tokens = bool(context.new_tokens)

    def check(self, model: "nn.Module") -> None:
        """Refuse patterns that no weight has, a model of which nothing would train, and new tokens that would not."""
        trainable = self._trainable(model)
        if self._adds_tokens:
            _check_new_tokens(model, trainable)

    def attach(self, model: "nn.Module") -> "nn.Module":
        """The model with every parameter trainable that is not frozen."""
        trainable = self._trainable(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trainable)
        return model

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """The model with the checkpoint's weights, bit for bit."""
        from llmkit.models.loading import load_weights

        load_weights(model, directory)
        return self.attach(model)

    def _trainable(self, model: "nn.Module") -> set[str]:
        names = [name for name, _ in model.named_parameters()]
        frozen = _chosen("freeze", self._config.freeze, names)
        trainable = set(names) - (frozen - _chosen("freeze_except", self._config.freeze_except, names))
        if not trainable:
            raise ConfigError(
                f"adapter.freeze={list(self._config.freeze)} leaves no weight to train; name exceptions with "
                "adapter.freeze_except"
            )
        return trainable


def _check_new_tokens(model: "nn.Module", trainable: Collection[str]) -> None:
    from llmkit.models.vocabulary import vocabulary_weights

    rows = {id(weight) for weight in vocabulary_weights(model)}
    for name, parameter in model.named_parameters():
        if id(parameter) in rows and name not in trainable:
            raise ConfigError(
                f"adapter.freeze leaves '{name}' as it is, and model.add_tokens adds rows to it that must train; name "
                "it in adapter.freeze_except"
            )


def _chosen(setting: str, patterns: Sequence[str], names: Sequence[str]) -> set[str]:
    """The names that patterns fit; every pattern must fit one."""
    chosen: set[str] = set()
    for pattern in patterns:
        found = _fitting(setting, pattern, names)
        if not found:
            close = get_close_matches(pattern, names, n=1, cutoff=0.3) or [names[0]]
            raise ConfigError(
                f"adapter.{setting}: '{pattern}' fits none of the model's {len(names)} weights; one of them is "
                f"'{close[0]}'"
            )
        chosen.update(found)
    return chosen


def _fitting(setting: str, pattern: str, names: Sequence[str]) -> list[str]:
    if not pattern.startswith(REGEX):
        return [name for name in names if fnmatchcase(name, pattern)]
    try:
        expression = re.compile(pattern.removeprefix(REGEX))
    except re.error as error:
        raise ConfigError(f"adapter.{setting}: '{pattern}' is not a regular expression: {error}") from None
    return [name for name in names if expression.fullmatch(name)]
