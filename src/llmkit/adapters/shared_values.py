"""Adapters of very few values: modules share frozen random matrices, or one bank of vectors."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from llmkit.adapters.contract import QUANTISED, AdapterContext, Facts
from llmkit.adapters.peft_adapter import ExcludingConfig, LayerConfig, PeftAdapter, Values
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

ADDED_MATRIX = Facts(convertible_to_lora=True)


class ProjectionConfig(LayerConfig):
    """What adapters with frozen random matrices share."""

    seed: int = Field(0, ge=0)
    """Draws the frozen matrices; adapters that are to share them need the same."""
    save_projection: bool = True
    """Write the frozen matrices into checkpoints, so that another version of PyTorch reads them; off saves space."""


class VeRAConfig(ProjectionConfig):
    """Rank and first values of the vectors."""

    r: int = Field(256, ge=1)
    """Rank of the frozen matrices; higher than LoRA's, since only vectors train."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""
    d_initial: float = 0.1
    """First value of the vector between the matrices."""


class VeRA(PeftAdapter):
    """VeRA (arXiv:2310.11454): all layers share two frozen random matrices, and vectors scale them."""

    Config = VeRAConfig
    peft_class = "VeraConfig"
    facts = Facts(convertible_to_lora=True, works_on_quantised=QUANTISED)
    renamed: ClassVar[Values] = {"seed": "projection_prng_key", "dropout": "vera_dropout"}


class PVeRA(PeftAdapter):
    """PVeRA (arXiv:2512.07703): VeRA with a distribution in place of its first vector."""

    Config = VeRAConfig
    peft_class = "PveraConfig"
    facts = Facts(is_random=True)
    renamed: ClassVar[Values] = {"seed": "projection_prng_key", "dropout": "pvera_dropout"}


class RandLoRAConfig(ProjectionConfig):
    """Rank and scale of the random bases."""

    r: int = Field(32, ge=1)
    """Rank of each base; fewer ranks make more bases."""
    alpha: float = Field(640, gt=0)
    """The update is scaled by `alpha / r`; about 20 times `r`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""


class RandLoRA(PeftAdapter):
    """RandLoRA (arXiv:2502.00987): a trained mixture of frozen random bases, an update of full rank."""

    Config = RandLoRAConfig
    peft_class = "RandLoraConfig"
    facts = ADDED_MATRIX
    renamed: ClassVar[Values] = {
        "seed": "projection_prng_key",
        "alpha": "randlora_alpha",
        "dropout": "randlora_dropout",
    }


class VBLoRAConfig(ExcludingConfig):
    """The bank of vectors, and how matrices are made of it."""

    r: int = Field(4, ge=1)
    """Rank of the update."""
    num_vectors: int = Field(256, ge=2)
    """Vectors in the bank."""
    vector_length: int = Field(256, ge=1)
    """Length of a vector; must divide both widths of every adapted module."""
    topk: int = Field(2, ge=1)
    """Vectors that are mixed into one piece of a matrix."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""


class VBLoRA(PeftAdapter):
    """VB-LoRA (arXiv:2405.15179): the matrices of all modules are mixed from one bank; starts near no change."""

    Config = VBLoRAConfig
    peft_class = "VBLoRAConfig"
    facts = Facts(convertible_to_lora=True, no_op_at_start=False)
    renamed: ClassVar[Values] = {"dropout": "vblora_dropout"}

    def begin(self, context: AdapterContext) -> None:
        """Refuse to mix more vectors than there are."""
        super().begin(context)
        if self.config.topk > self.config.num_vectors:
            raise ConfigError(
                f"adapter.topk={self.config.topk} is more than the {self.config.num_vectors} vectors of "
                "adapter.num_vectors"
            )

    def check(self, model: "nn.Module") -> None:
        """Refuse vectors that do not divide the widths."""
        from llmkit.adapters.divisibility import check_divides

        super().check(model)
        check_divides(model, self.config, "vector_length", self.config.vector_length, of="both")


class TinyLoRAConfig(LayerConfig):
    """How few values."""

    r: int = Field(2, ge=1)
    """Rank of the frozen decomposition of the weight."""
    u: int = Field(64, ge=1)
    """Trained values of each group of modules."""
    weight_tying: float = Field(0.0, ge=0, le=1)
    """How far modules share values: 0 not at all, 1 all of them."""
    seed: int = Field(42, ge=0)
    """Draws the frozen projections."""
    save_projection: bool = True
    """Write the frozen projections into checkpoints; off saves space."""


class TinyLoRA(PeftAdapter):
    """TinyLoRA (arXiv:2602.04118): down to a dozen trained values in all."""

    Config = TinyLoRAConfig
    peft_class = "TinyLoraConfig"
    facts = ADDED_MATRIX
    renamed: ClassVar[Values] = {"seed": "projection_seed"}


class UniLoRAConfig(LayerConfig):
    """Length of the one vector."""

    r: int = Field(4, ge=1)
    """Rank of the update."""
    length: int = Field(256, ge=1)
    """Trained values of the whole model."""
    seed: int = Field(42, ge=0)
    """Chooses which value stands where."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""


class UniLoRA(PeftAdapter):
    """Uni-LoRA (arXiv:2506.00799): one short vector is spread over the LoRA of all modules; starts near no change."""

    Config = UniLoRAConfig
    peft_class = "UniLoraConfig"
    facts = Facts(convertible_to_lora=True, no_op_at_start=False, sized_by_shapes=False)
    renamed: ClassVar[Values] = {"length": "theta_d_length", "seed": "proj_seed", "dropout": "unilora_dropout"}


class FRoDConfig(LayerConfig):
    """How many rotations train."""

    density: float = Field(0.01, gt=0, le=1)
    """Share of the rotation's values that train."""
    seed: int = Field(0, ge=0)
    """Chooses them."""
    save_projection: bool = True
    """Write the frozen basis into checkpoints; off saves space."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""


class FRoD(PeftAdapter):
    """FRoD (AAAI 2026): layers share a basis of their weights, and sparse rotations in it train."""

    Config = FRoDConfig
    peft_class = "FrodConfig"
    facts = Facts(sized_by_shapes=False)
    fixed: ClassVar[Values] = {"progressbar": False}
    renamed: ClassVar[Values] = {
        "density": "sparse_rate",
        "seed": "projection_prng_key",
        "dropout": "frod_dropout",
    }
