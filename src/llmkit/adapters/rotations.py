"""Adapters that turn the weight, or part of it, instead of adding to it."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from llmkit.adapters.contract import QUANTISED, AdapterContext, Facts
from llmkit.adapters.peft_adapter import ExcludingConfig, PeftAdapter, TargetConfig, Values
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class OFTConfig(ExcludingConfig):
    """Size of the rotated blocks."""

    block_size: int = Field(32, ge=2)
    """Inputs that one rotation mixes; must divide the inputs of every adapted module."""
    constrained: bool = False
    """Keep rotations near none (COFT)."""
    eps: float = Field(6e-5, gt=0)
    """How near, with `constrained`."""
    share_blocks: bool = False
    """One rotation for all blocks of a module."""
    module_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the blocks that a training pass leaves as they are."""
    cayley_terms: int = Field(5, ge=0)
    """Terms of the series that stands for an inverse; 0 computes the inverse itself, which is slower and exact."""


class OFT(PeftAdapter):
    """Orthogonal fine-tuning (arXiv:2306.07280): rotates blocks of inputs, which keeps angles between neurons."""

    Config = OFTConfig
    peft_class = "OFTConfig"
    facts = Facts(works_on_quantised=QUANTISED)
    renamed: ClassVar[Values] = {
        "block_size": "oft_block_size",
        "constrained": "coft",
        "share_blocks": "block_share",
    }
    own_options = frozenset({"cayley_terms"})

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words."""
        terms = self.config.cayley_terms
        series = {"use_cayley_neumann": True, "num_cayley_neumann_terms": terms}
        return super().peft_options() | (series if terms else {"use_cayley_neumann": False})

    def check(self, model: "nn.Module") -> None:
        """Refuse blocks that do not divide the inputs."""
        from llmkit.adapters.divisibility import check_divides

        super().check(model)
        check_divides(model, self.config, "block_size", self.config.block_size, of="in")


class BOFTConfig(ExcludingConfig):
    """Size of the blocks, and how many layers of them."""

    block_size: int = Field(4, ge=2)
    """Inputs that one rotation mixes: an even number that divides the inputs of every adapted module."""
    factors: int = Field(1, ge=1)
    """Layers of rotations, each twice as far apart as the one before (butterfly). 1 is OFT; more need a GPU and CUDA's
    compiler."""
    module_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the blocks that a training pass leaves as they are."""


class BOFT(PeftAdapter):
    """Butterfly orthogonal fine-tuning (arXiv:2311.06243): rotations of few parameters that mix all inputs."""

    Config = BOFTConfig
    peft_class = "BOFTConfig"
    facts = Facts(sized_by_shapes=False)
    renamed: ClassVar[Values] = {
        "block_size": "boft_block_size",
        "factors": "boft_n_butterfly_factor",
        "module_dropout": "boft_dropout",
    }

    def begin(self, context: AdapterContext) -> None:
        """Refuse a butterfly where PEFT would leave it out without a word."""
        import torch

        super().begin(context)
        if self.config.factors > 1 and not torch.cuda.is_available():
            raise ConfigError(
                f"adapter.factors={self.config.factors} needs a GPU, and there is none here; use adapter.factors=1, or "
                "adapter.name=hra, which mixes all inputs too"
            )

    def start(self, model: Any) -> None:
        """The same for a GPU without CUDA's compiler."""
        if self.config.factors > 1 and any(
            getattr(one, "fbd_cuda_available", True) is False for one in model.modules()
        ):
            raise ConfigError(
                f"adapter.factors={self.config.factors} needs CUDA's compiler (nvcc) and ninja; install them, or use "
                "adapter.factors=1"
            )

    def check(self, model: "nn.Module") -> None:
        """Refuse blocks that do not divide, at any layer of the butterfly."""
        from llmkit.adapters.divisibility import check_divides

        super().check(model)
        size, layers = self.config.block_size, self.config.factors - 1
        if layers and size % 2:
            raise ConfigError(f"adapter.block_size={size} must be even for adapter.factors={self.config.factors}")
        check_divides(model, self.config, "block_size", size, of="in")
        if layers:
            check_divides(model, self.config, f"block_size times 2**{layers}", size * 2**layers, of="in")


class HRAConfig(ExcludingConfig):
    """Number of reflections."""

    r: int = Field(8, ge=2, multiple_of=2)
    """Reflections in a row; an even number of them is a rotation that can start at none."""
    orthogonalise: bool = False
    """Keep the directions of reflection orthogonal to one another (Gram-Schmidt)."""


class HRA(PeftAdapter):
    """Householder reflections (arXiv:2405.17484): a rotation as a chain of mirrors, of low rank too."""

    Config = HRAConfig
    peft_class = "HRAConfig"
    facts = Facts()
    renamed: ClassVar[Values] = {"orthogonalise": "apply_GS"}


class RoADConfig(TargetConfig):
    """Form of the rotations."""

    variant: Literal["road_1", "road_2", "road_4"] = "road_1"
    """How many angles and lengths a pair of outputs shares; more train more."""
    group_size: int = Field(64, ge=2, multiple_of=2)
    """Outputs among which pairs are formed; must divide the outputs of every adapted module."""


class RoAD(PeftAdapter):
    """RoAd (arXiv:2409.00119): rotates pairs of outputs; adapters of many users fit into one batch."""

    Config = RoADConfig
    peft_class = "RoadConfig"
    facts = Facts(works_on_quantised=QUANTISED)

    def check(self, model: "nn.Module") -> None:
        """Refuse groups that do not divide the outputs."""
        from llmkit.adapters.divisibility import check_divides

        super().check(model)
        check_divides(model, self.config, "group_size", self.config.group_size, of="out")


class PSOFTConfig(ExcludingConfig):
    """Rank and scale of the rotated subspace."""

    r: int = Field(32, ge=2)
    """Rank of the weight's main subspace, in which the rotation is; at most the smaller width of a module."""
    alpha: float = Field(32, gt=0)
    """The update is scaled by `alpha / r`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""
    scale_inputs: bool = True
    """Train a factor for each direction before the rotation."""
    scale_outputs: bool = True
    """Train a factor for each direction after it."""


class PSOFT(PeftAdapter):
    """PSOFT: a rotation inside the weight's main subspace; very few parameters."""

    Config = PSOFTConfig
    peft_class = "PsoftConfig"
    facts = Facts(convertible_to_lora=True)
    renamed: ClassVar[Values] = {
        "alpha": "psoft_alpha",
        "dropout": "psoft_dropout",
        "scale_inputs": "psoft_mag_a",
        "scale_outputs": "psoft_mag_b",
    }


class OSFConfig(TargetConfig):
    """How much of the weight stays."""

    kept: float = Field(0.5, gt=0, lt=1)
    """Share of each weight's directions, strongest first, that stay as they are; the rest trains."""


class OSF(PeftAdapter):
    """Orthogonal subspace fine-tuning (arXiv:2504.07097): trains a weight's weaker directions to forget less."""

    Config = OSFConfig
    peft_class = "OSFConfig"
    facts = Facts(keeps_base=False)
    renamed: ClassVar[Values] = {"kept": "effective_rank"}
