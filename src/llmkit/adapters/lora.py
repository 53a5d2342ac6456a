"""Low-rank adaptation (arXiv:2106.09685) through PEFT: small matrices train beside frozen weights."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from llmkit.config.section import Section
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class Config(Section):
    """Rank, scale and place of the matrices."""

    r: int = Field(16, ge=1)
    """Rank of the update."""
    alpha: float = Field(32, gt=0)
    """The update is scaled by `alpha / r`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""
    target_modules: tuple[str, ...] | str = "all-linear"
    """Names of the modules to adapt, or `all-linear` for every linear layer but the output head."""


def build(config: Config) -> "LoRA":
    """Make the adapter."""
    return LoRA(config)


class LoRA:
    """Wraps a model in `peft.PeftModel`."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def attach(self, model: "nn.Module") -> "nn.Module":
        """The wrapped model; its update starts at zero.

        Raises:
            ConfigError: the model has no module of a given name.
        """
        import peft

        targets = self._config.target_modules
        settings = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=self._config.r,
            lora_alpha=self._config.alpha,  # type: ignore[arg-type] - PEFT only divides by it
            lora_dropout=self._config.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
        )
        try:
            with _quiet():
                return peft.get_peft_model(model, settings)  # type: ignore[arg-type] - a transformers model
        except ValueError as error:
            names = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_linear(module)})
            raise ConfigError(
                f"adapter.target_modules={targets}: {error}. Linear layers of this model: {', '.join(names)}"
            ) from error

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """The model wrapped with the checkpoint's adapter, ready to train on."""
        import peft

        with _quiet():
            return peft.PeftModel.from_pretrained(model, directory, is_trainable=True)  # type: ignore[arg-type]


@contextmanager
def _quiet() -> Iterator[None]:
    """PEFT asks transformers by an old name whether activations are checkpointed; users can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def _is_linear(module: "nn.Module") -> bool:
    return type(module).__name__ in {"Linear", "Conv1D"}
