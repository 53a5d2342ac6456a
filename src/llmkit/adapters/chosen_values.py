"""Adapters that train some of the model's own values: tokens, norms, scattered weights, or a factor for each."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from llmkit.adapters.contract import QUANTISED, AdapterContext, Facts
from llmkit.adapters.peft_adapter import LayerConfig, PeftAdapter, TargetConfig, Values
from llmkit.config.section import Section
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class IA3Config(TargetConfig):
    """Which activations are scaled, and on which side."""

    target_modules: tuple[str, ...] | str = ("k_proj", "v_proj", "down_proj")
    """Names of the modules whose activations are scaled, a regular expression for their full names, or `all-linear`."""
    feedforward_modules: tuple[str, ...] = ("down_proj",)
    """Those of them whose inputs are scaled; of the others, it is the outputs."""
    exclude_modules: tuple[str, ...] | str | None = None
    """Names of modules, or a regular expression for full names, to leave out of `target_modules`."""


class IA3(PeftAdapter):
    """IA3 (arXiv:2205.05638): one trained factor for each activation."""

    Config = IA3Config
    peft_class = "IA3Config"
    facts = Facts(works_on_quantised=QUANTISED)

    def begin(self, context: AdapterContext) -> None:
        """Refuse feed-forward modules that are not adapted."""
        super().begin(context)
        targets = self.config.target_modules
        outside = [name for name in self.config.feedforward_modules if name not in targets]
        if outside and not isinstance(targets, str):
            raise ConfigError(
                f"adapter.feedforward_modules: {outside[0]} is none of adapter.target_modules ({', '.join(targets)})"
            )


class NormConfig(TargetConfig):
    """Which norms train."""

    target_modules: tuple[str, ...] | str = r".*norm\d*"
    """Names of the norms, or a regular expression for their full names."""


class LNTuning(PeftAdapter):
    """Norm tuning (arXiv:2312.11420): the model's norms train and nothing else."""

    Config = NormConfig
    peft_class = "LNTuningConfig"
    facts = Facts()


class TokensConfig(Section):
    """Which tokens train."""

    token_indices: tuple[int, ...] = Field(min_length=1)
    """Ids of the tokens: new special tokens, for example."""


class TrainableTokens(PeftAdapter):
    """Trains the embeddings of chosen tokens and nothing else: for new special tokens."""

    Config = TokensConfig
    peft_class = "TrainableTokensConfig"
    facts = Facts()

    def check(self, model: "nn.Module") -> None:
        """Refuse tokens that the model does not have."""
        size = model.get_input_embeddings().num_embeddings  # type: ignore[union-attr, operator] - a transformers model
        wrong = [token for token in self.config.token_indices if not 0 <= token < size]
        if wrong:
            raise ConfigError(
                f"adapter.token_indices: there is no token {wrong[0]}; the model has embeddings for {size}"
            )


class SHiRAConfig(TargetConfig):
    """How many weights train."""

    r: int = Field(32, ge=1)
    """As many values train as a LoRA of this rank would have."""
    seed: int = Field(0, ge=0)
    """Chooses them."""


class SHiRA(PeftAdapter):
    """SHiRA (arXiv:2406.13175): scattered values of the weights themselves; swaps in an instant."""

    Config = SHiRAConfig
    peft_class = "ShiraConfig"
    facts = Facts(sized_by_shapes=False)
    renamed: ClassVar[Values] = {"seed": "random_seed"}

    def check(self, model: "nn.Module") -> None:
        """Refuse more trained values than a weight has."""
        from llmkit.adapters.divisibility import module_widths

        super().check(model)
        widths: dict[str, list[int]] = {}
        for name, _, width in module_widths(model, self.config):
            widths.setdefault(name, []).append(width)
        for name, (first, second) in widths.items():
            if self.config.r * (first + second) >= first * second:
                raise ConfigError(
                    f"adapter.r={self.config.r} would train as many values as {name} has ({first} x {second}); lower it"
                )


class SuperTuningConfig(TargetConfig):
    """How many weights train, and a LoRA beside them."""

    sparsity: float = Field(0.99, gt=0, lt=1)
    """Share of the weights that stay as they are; the largest of the rest train."""
    r: int | None = Field(None, ge=1)
    """Rank of a LoRA beside them (Supra); unset has none."""
    alpha: float | None = Field(None, gt=0)
    """That LoRA is scaled by `alpha / r`; unset is twice `r`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on that LoRA's input; only supervised fine-tuning uses it."""


class SuperTuning(PeftAdapter):
    """Super-tuning (arXiv:2607.09287): the largest weights train, with a LoRA beside them if asked for (Supra)."""

    Config = SuperTuningConfig
    peft_class = "SupertuningConfig"
    facts = Facts()
    renamed: ClassVar[Values] = {"alpha": "lora_alpha", "dropout": "lora_dropout"}

    def begin(self, context: AdapterContext) -> None:
        """Refuse options of a LoRA that is not there."""
        super().begin(context)
        if self.config.r is None and (self.config.alpha is not None or self.config.dropout):
            raise ConfigError(
                "adapter.alpha and adapter.dropout have no effect without adapter.r: set it, or leave them"
            )


class BEFTConfig(TargetConfig):
    """Which biases train."""

    target_modules: tuple[str, ...] | str = ("v_proj",)
    """Names of the modules that get a trained bias, a regular expression for their full names, or `all-linear`."""


class BEFT(PeftAdapter):
    """Bias-efficient fine-tuning (arXiv:2509.15974): a trained bias on chosen projections."""

    Config = BEFTConfig
    peft_class = "BeftConfig"
    facts = Facts(not_mergeable="it is a bias, which layers without one cannot take")


class AdaMSSConfig(LayerConfig):
    """Ranks and subspaces."""

    r: int = Field(100, ge=1)
    """Rank of the decomposition of each weight."""
    num_subspaces: int = Field(5, ge=1)
    """Groups that its directions are divided into."""
    subspace_rank: int = Field(1, ge=1)
    """Rank of the update in each."""
    seed: int = Field(0, ge=0)
    """Of the grouping."""


class AdaMSS(PeftAdapter):
    """AdaMSS: the weight's directions in groups, and a small update in each."""

    Config = AdaMSSConfig
    peft_class = "AdamssConfig"
    facts = Facts(sized_by_shapes=False)
    EXTRA = "adapters"
    packages: ClassVar[Values] = {"sklearn": "scikit-learn"}
    renamed: ClassVar[Values] = {"seed": "random_seed"}


class ShadowConfig(Section):
    """Size of the small model beside the large one."""

    r: int = Field(8, ge=1)
    """Rank of what it puts into each layer."""
    alpha: float = Field(0.1, gt=0)
    """Strength of what it puts in."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on its signal; only supervised fine-tuning uses it."""
    num_layers: int = Field(1, ge=1)
    """Layers of the small model."""


class Shadow(PeftAdapter):
    """Shadow: a small trained copy of the model runs beside it and corrects every layer."""

    Config = ShadowConfig
    peft_class = "ShadowConfig"
    facts = Facts(not_mergeable="its correction depends on what the small model says of each input", one_by_one=True)
    # Its own loss would need the labels; llmkit computes losses outside the model.
    fixed: ClassVar[Values] = {"auxiliary_loss_weight": 0.0}
    renamed: ClassVar[Values] = {
        "alpha": "shadow_alpha",
        "dropout": "shadow_dropout",
        "num_layers": "shadow_num_hidden_layers",
    }
