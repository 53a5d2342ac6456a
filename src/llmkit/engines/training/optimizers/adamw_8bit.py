"""AdamW with moments in 8 bits (arXiv:2110.02861), through bitsandbytes: a quarter of the optimizer's memory."""

import warnings
from collections.abc import Sequence
from importlib import import_module

from pydantic import Field

from llmkit.config.section import Section
from llmkit.engines.training.optimizers.contract import Optimizer, ParameterGroup
from llmkit.errors import PluginError

EXTRA = "quantization"


class Config(Section):
    """Decay rates of the moments, and what stays in 32 bits."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moment estimates."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of the update."""
    min_size: int = Field(4096, ge=1)
    """Tensors with fewer weights keep their moments in 32 bits."""


def build(config: Config, groups: Sequence[ParameterGroup]) -> Optimizer:
    """Make the optimizer.

    Raises:
        PluginError: bitsandbytes is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Of old names in PyTorch that bitsandbytes uses; users can do nothing about it.
            warnings.simplefilter("ignore", DeprecationWarning)
            bitsandbytes = import_module("bitsandbytes")
    except ImportError as error:
        raise PluginError(
            f"optim.optimizer=adamw_8bit needs bitsandbytes ({error}): pip install 'llmkit[{EXTRA}]', or choose "
            "optim.optimizer=adamw or adafactor"
        ) from error
    settings = [group.as_settings() for group in groups]
    return bitsandbytes.optim.AdamW8bit(settings, betas=config.betas, eps=config.eps, min_8bit_size=config.min_size)
