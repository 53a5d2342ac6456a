"""Updates that are products of small matrices in another way than LoRA's, or that multiply the weight."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from llmkit.adapters.contract import Facts
from llmkit.adapters.peft_adapter import ExcludingConfig, LayerConfig, PeftAdapter, TargetConfig, Values
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

ADDED_MATRIX = Facts(convertible_to_lora=True)
"""The update is a matrix that is added to the weight."""


class LyCORISConfig(ExcludingConfig):
    """What LoHa and LoKr share."""

    r: int = Field(8, ge=1)
    """Rank of the factors."""
    alpha: float = Field(8, gt=0)
    """The update is scaled by `alpha / r`."""
    rank_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the ranks that a training pass leaves out."""
    module_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapted modules that a training pass leaves as they are."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Other ranks for some modules: a regular expression for the end of their names, and the rank."""
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    """Other values of `alpha` for some modules, in the same way."""


class LoHa(PeftAdapter):
    """LoHa (arXiv:2108.06098): the elementwise product of two low-rank matrices, of rank r squared."""

    Config = LyCORISConfig
    peft_class = "LoHaConfig"
    facts = ADDED_MATRIX


class LoKrConfig(LyCORISConfig):
    """LoHa's options, and how the Kronecker product is divided."""

    decompose_both: bool = False
    """Give the small left factor a low rank too."""
    decompose_factor: int = Field(-1, ge=-1)
    """Size of the left factor; -1 makes both about equal."""


class LoKr(PeftAdapter):
    """LoKr (arXiv:2309.14859): the Kronecker product of a small and a low-rank matrix."""

    Config = LoKrConfig
    peft_class = "LoKrConfig"
    facts = ADDED_MATRIX


class HiRAConfig(ExcludingConfig):
    """Rank and place of the factors."""

    r: int = Field(32, ge=1)
    """Rank of what the weight is multiplied by."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Other ranks for some modules: a regular expression for the end of their names, and the rank."""


class HiRA(PeftAdapter):
    """HiRA (ICLR 2025): the weight times a low-rank matrix, element by element; an update of high rank."""

    Config = HiRAConfig
    peft_class = "HiraConfig"
    facts = Facts()
    renamed: ClassVar[Values] = {"dropout": "hira_dropout"}


class DeLoRAConfig(ExcludingConfig):
    """Rank, place and largest size of the update."""

    r: int = Field(8, ge=1)
    """Rank of the update."""
    bound: int = Field(15, gt=0)
    """First value of the trained bound on the update's Frobenius norm, in shares of the weight's."""
    module_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapted modules that a training pass leaves as they are."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Other ranks for some modules: a regular expression for the end of their names, and the rank."""


class DeLoRA(PeftAdapter):
    """DeLoRA (arXiv:2503.18225): normalised directions, and one trained bound on the length of the update."""

    Config = DeLoRAConfig
    peft_class = "DeloraConfig"
    facts = ADDED_MATRIX
    renamed: ClassVar[Values] = {"bound": "delora_lambda"}


class GraLoRAConfig(LayerConfig):
    """Rank, scale and number of the blocks."""

    r: int = Field(32, ge=1)
    """Rank of the update; each block has `r / blocks`."""
    alpha: float = Field(64, gt=0)
    """The update is scaled by `alpha / (r + hybrid_r)`."""
    blocks: int = Field(2, ge=1)
    """Blocks along each side of a weight; must divide `r` and both widths of every adapted module."""
    hybrid_r: int = Field(0, ge=0)
    """Rank of a plain LoRA beside the blocks."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""


class GraLoRA(PeftAdapter):
    """GraLoRA (arXiv:2505.20355): the weight in blocks, and a LoRA of its own for each."""

    Config = GraLoRAConfig
    peft_class = "GraloraConfig"
    facts = ADDED_MATRIX
    renamed: ClassVar[Values] = {"blocks": "gralora_k", "dropout": "gralora_dropout"}

    def check(self, model: "nn.Module") -> None:
        """Refuse blocks that do not divide."""
        from llmkit.adapters.divisibility import check_divides

        super().check(model)
        if self.config.r % self.config.blocks:
            raise ConfigError(f"adapter.r={self.config.r} is not a multiple of adapter.blocks={self.config.blocks}")
        check_divides(model, self.config, "blocks", self.config.blocks, of="both")


class MiSSConfig(ExcludingConfig):
    """Rank and form of the shards."""

    r: int = Field(64, ge=1)
    """Rank along the inputs."""
    form: Literal["balanced", "bat", "mini"] = "balanced"
    """`balanced` one shared shard; `bat` an update that depends on the weight; `mini` far fewer parameters."""
    mini_r: int = Field(1, ge=1)
    """Rank along the outputs for `form=mini`; must divide the outputs of every adapted module."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""


class MiSS(PeftAdapter):
    """MiSS (arXiv:2409.15371): one shard of trained values, expanded over the whole weight."""

    Config = MiSSConfig
    peft_class = "MissConfig"
    facts = ADDED_MATRIX
    renamed: ClassVar[Values] = {"dropout": "miss_dropout"}
    own_options = frozenset({"form"})

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words."""
        form = self.config.form
        return super().peft_options() | ({} if form == "balanced" else {"init_weights": form})

    def check(self, model: "nn.Module") -> None:
        """Refuse ranks that do not divide where they must."""
        from llmkit.adapters.divisibility import check_divides

        super().check(model)
        if self.config.form == "mini":
            check_divides(model, self.config, "mini_r", self.config.mini_r, of="out")
        if self.config.form == "bat":
            check_divides(model, self.config, "r", self.config.r, of="both")


class Bone(MiSS):
    """Another name of `miss`: what Bone (block affine adaptation) is called now."""

    alias_of = "miss"


class PEANuTConfig(ExcludingConfig):
    """Size and depth of the small network."""

    r: int = Field(32, ge=1)
    """Width of its layers."""
    depth: int = Field(0, ge=0)
    """Hidden layers on each side of the middle."""
    activation: str = "relu"
    """Its non-linear function, by its name in transformers."""
    scaling: float = Field(1.0, gt=0)
    """Factor on what it adds."""


class PEANuT(PeftAdapter):
    """PEANuT (arXiv:2410.01870): a small network computes the update from the weight."""

    Config = PEANuTConfig
    peft_class = "PeanutConfig"
    facts = Facts()
    renamed: ClassVar[Values] = {"activation": "act_fn"}


class GLoRAConfig(TargetConfig):
    """Rank, and the form of each part."""

    r: int = Field(8, ge=1)
    """Rank of the parts that are matrices."""
    weight_form: Literal["lora", "vector", "constant"] = "lora"
    """Form of what scales and shifts the weight."""
    coupling_form: Literal["lora", "vector", "none"] = "lora"
    """Form of what turns the weight into a bias."""
    bias_form: Literal["vector", "constant", "none"] = "constant"
    """Form of what scales and shifts the bias."""


class GLoRA(PeftAdapter):
    """Generalised LoRA (arXiv:2306.07967): scales and shifts the weight and the bias."""

    Config = GLoRAConfig
    peft_class = "GloraConfig"
    facts = Facts()
    renamed: ClassVar[Values] = {
        "weight_form": "config_A_B",
        "coupling_form": "config_C",
        "bias_form": "config_D_E",
    }


class DEFTConfig(ExcludingConfig):
    """Rank and form of the projection."""

    r: int = Field(8, ge=1)
    """Rank of what is projected away and put in."""
    projection: Literal["relu", "qr"] = "relu"
    """How the projection is made of its factors; `qr` makes it orthogonal."""
    alpha: float | None = Field(None, gt=0)
    """What is put in is scaled by `alpha / r`; unset leaves it as it is."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""


class DEFT(PeftAdapter):
    """DEFT: takes a subspace out of the weight and puts a trained one in."""

    Config = DEFTConfig
    peft_class = "DeftConfig"
    facts = Facts()
    renamed: ClassVar[Values] = {"projection": "decomposition_method", "dropout": "deft_dropout"}
