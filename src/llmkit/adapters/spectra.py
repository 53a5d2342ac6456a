"""Adapters whose few values are coefficients of a transform of the whole update."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from llmkit.adapters.contract import Facts
from llmkit.adapters.peft_adapter import ExcludingConfig, LayerConfig, PeftAdapter, Values
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class FourierFTConfig(ExcludingConfig):
    """How many frequencies train, and which."""

    num_frequencies: int = Field(1000, ge=1)
    """Coefficients of each adapted module."""
    scaling: float = Field(150.0, gt=0)
    """Factor on the update."""
    seed: int = Field(777, ge=0)
    """Chooses the frequencies."""
    num_frequencies_pattern: dict[str, int] = Field(default_factory=dict)
    """Other counts for some modules: a regular expression for the end of their names, and the count."""


class FourierFT(PeftAdapter):
    """FourierFT (arXiv:2405.03003): a few frequencies of the update's Fourier transform; starts at no change."""

    Config = FourierFTConfig
    peft_class = "FourierFTConfig"
    facts = Facts(convertible_to_lora=True)
    # PEFT's own default begins with random coefficients, which changes the model before it has learnt anything.
    fixed: ClassVar[Values] = {"init_weights": True}
    renamed: ClassVar[Values] = {
        "num_frequencies": "n_frequency",
        "seed": "random_loc_seed",
        "num_frequencies_pattern": "n_frequency_pattern",
    }

    def check(self, model: "nn.Module") -> None:
        """Refuse more coefficients than a weight has values."""
        super().check(model)
        check_count(model, self.config, self.config.num_frequencies)


class Fourier(FourierFT):
    """Another name of `fourierft`."""

    alias_of = "fourierft"


class WaveFTConfig(ExcludingConfig):
    """How many wavelet coefficients train, and of which wavelet."""

    num_frequencies: int = Field(2592, ge=1)
    """Coefficients of each adapted module."""
    scaling: float = Field(25.0, gt=0)
    """Factor on the update."""
    wavelet: str = "db1"
    """Family of the wavelet: `db1`, `sym2`, `coif1`, ..."""
    seed: int = Field(777, ge=0)
    """Chooses the coefficients."""
    proportional: bool = False
    """Give modules coefficients in proportion to their size."""


class WaveFT(PeftAdapter):
    """WaveFT (arXiv:2505.12532): a few coefficients of the update's wavelet transform."""

    Config = WaveFTConfig
    peft_class = "WaveFTConfig"
    facts = Facts(convertible_to_lora=True)
    renamed: ClassVar[Values] = {
        "num_frequencies": "n_frequency",
        "wavelet": "wavelet_family",
        "seed": "random_loc_seed",
        "proportional": "proportional_parameters",
    }

    def check(self, model: "nn.Module") -> None:
        """Refuse more coefficients than a weight has values."""
        super().check(model)
        check_count(model, self.config, self.config.num_frequencies)


class C3AConfig(LayerConfig):
    """Size of the circular blocks."""

    block_size: int = Field(256, ge=1)
    """Length of a circular convolution; must divide both widths of every adapted module."""
    block_size_pattern: dict[str, int] = Field(default_factory=dict)
    """Other lengths for some modules: a regular expression for the end of their names, and the length."""


class C3A(PeftAdapter):
    """C3A (arXiv:2407.19342): blocks that are circular convolutions, an update of high rank; starts at random."""

    Config = C3AConfig
    peft_class = "C3AConfig"
    facts = Facts(convertible_to_lora=True, no_op_at_start=False)

    def check(self, model: "nn.Module") -> None:
        """Refuse blocks that do not divide."""
        from llmkit.adapters.divisibility import check_divides

        super().check(model)
        if not self.config.block_size_pattern:
            check_divides(model, self.config, "block_size", self.config.block_size, of="both")


def check_count(model: "nn.Module", config: object, count: int) -> None:
    """Refuse more trained coefficients than a weight has values.

    Raises:
        ConfigError: names the smallest module.
    """
    from llmkit.adapters.divisibility import module_widths

    widths: dict[str, int] = {}
    for name, _, width in module_widths(model, config):
        widths[name] = widths.get(name, 1) * width
    name, size = min(widths.items(), key=lambda item: item[1], default=("", count))
    if count > size:
        raise ConfigError(
            f"adapter.num_frequencies={count} is more than the {size} values of {name}; lower it, or leave the module "
            "out of adapter.target_modules"
        )
