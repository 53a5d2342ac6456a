"""Low-rank adaptation (arXiv:2106.09685) and the variants that differ by a setting."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from llmkit.adapters.contract import QUANTISED, TORCHAO, AdapterContext, Facts
from llmkit.adapters.peft_adapter import ExcludingConfig, PeftAdapter, Values
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

LORA_SERVERS = ("vllm", "sglang")
"""Engines that load a plain LoRA beside its base model."""
HYENA_MODULES = ("in_proj", "out_proj", "fc1", "fc2")


class LowRankConfig(ExcludingConfig):
    """Rank, scale and place of the matrices."""

    r: int = Field(16, ge=1)
    """Rank of the update."""
    alpha: float = Field(32, gt=0)
    """The update is scaled by `alpha / r`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Other ranks for some modules: a regular expression for the end of their names, and the rank."""
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    """Other values of `alpha` for some modules, in the same way."""
    b_learning_rate_ratio: float = Field(1.0, gt=0)
    """How many times the learning rate the second matrix (B) gets: LoRA+ (arXiv:2402.12354) advises about 16."""


class LoRAConfig(LowRankConfig):
    """Rank, scale, place and start of the matrices, and what trains beside them."""

    rslora: bool = False
    """Scale by `alpha / sqrt(r)` instead (arXiv:2312.03732), so that high ranks learn as fast as low ones."""
    start: Literal["default", "gaussian", "orthogonal"] = "default"
    """First values: `default` Kaiming-uniform and zeros, `gaussian` normal and zeros, `orthogonal` two factors of a
    random rotation whose product is zero."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which of the base model's biases train: none, all, or those of adapted modules."""
    lora_bias: bool = False
    """Train a bias in the second matrix too."""
    trainable_token_indices: tuple[int, ...] = ()
    """Tokens whose embeddings train: new special tokens, for example."""


class LoRA(PeftAdapter):
    """Low-rank adaptation (arXiv:2106.09685): small matrices train beside frozen weights."""

    Config = LoRAConfig
    peft_class = "LoraConfig"
    facts = Facts(
        convertible_to_lora=True,
        servable_by=LORA_SERVERS,
        works_on_quantised=(*QUANTISED, TORCHAO),
        trains_new_tokens=True,
    )
    renamed: ClassVar[Values] = {"alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora"}
    own_options = frozenset({"b_learning_rate_ratio", "start"})

    @classmethod
    def facts_of(cls, config: Any) -> Facts:
        """What trains beside the matrices changes what can be done with them."""
        facts = cls.facts
        patterns = config.rank_pattern or config.alpha_pattern
        if patterns or config.modules_to_save or getattr(config, "trainable_token_indices", ()):
            facts = replace(facts, servable_by=())
        if getattr(config, "rslora", False):
            facts = replace(facts, servable_by=tuple(name for name in facts.servable_by if name == "vllm"))
        if getattr(config, "bias", "none") != "none":
            facts = replace(facts, keeps_base=False, convertible_to_lora=False, servable_by=())
        if getattr(config, "lora_bias", False):
            reason = "lora_bias=true adds a bias, which layers without one cannot take"
            facts = replace(facts, not_mergeable=reason, convertible_to_lora=False, servable_by=())
        return facts

    def check(self, model: "nn.Module") -> None:
        """Refuse module names and tokens that the model does not have."""
        super().check(model)
        chosen = getattr(self.config, "trainable_token_indices", ())
        size = model.get_input_embeddings().num_embeddings if chosen else 0  # type: ignore[union-attr, operator]
        wrong = [token for token in chosen if not 0 <= token < size]
        if wrong:
            raise ConfigError(
                f"adapter.trainable_token_indices: there is no token {wrong[0]}; the model has embeddings for {size}"
            )

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words, with the start by its name there."""
        start = getattr(self.config, "start", "default")
        return super().peft_options() | ({} if start == "default" else {"init_lora_weights": start})

    def learning_rate_ratio(self, name: str) -> float:
        """LoRA+: the second matrix learns faster."""
        is_second = ".lora_B." in name or ".lora_embedding_B." in name
        return self.config.b_learning_rate_ratio if is_second else 1.0


class RsLoRA(LoRA):
    """Rank-stabilised LoRA (arXiv:2312.03732): the update is scaled by `alpha / sqrt(r)`."""

    Config = LowRankConfig
    facts = replace(LoRA.facts, servable_by=("vllm",))
    fixed: ClassVar[Values] = {"use_rslora": True}


class DoRA(LoRA):
    """Weight-decomposed LoRA (arXiv:2402.09353): direction by low rank, and a trained magnitude for each output."""

    Config = LoRAConfig
    facts = replace(LoRA.facts, convertible_to_lora=False, servable_by=(), works_on_quantised=("bnb_4bit",))
    fixed: ClassVar[Values] = {"use_dora": True}

    def begin(self, context: AdapterContext) -> None:
        """Refuse options that PEFT's form of it lacks."""
        super().begin(context)
        if self.config.lora_bias:
            raise ConfigError("adapter.lora_bias=true: dora has no bias of its own; use adapter.name=lora, or leave it")

    def check(self, model: "nn.Module") -> None:
        """Refuse Megatron's layers, whose weights lie in parts on several devices."""
        from llmkit.adapters.target_modules import adapted_modules

        super().check(model)
        for name, module in adapted_modules(model, self.config).items():
            if type(module).__module__.startswith("megatron"):
                raise ConfigError(
                    f"adapter.name={self.name}: {name} is a layer of Megatron, whose rows lie on several devices, and "
                    "dora needs their lengths; use adapter.name=lora"
                )


class HyenaDNAConfig(LoRAConfig):
    """LoRA's options, with the modules of Hyena models as targets."""

    target_modules: tuple[str, ...] | str = HYENA_MODULES
    """Names of the modules to adapt, a regular expression for their full names, or `all-linear`; these are the
    projections of a Hyena operator and the two layers of its feed-forward network."""


class HyenaDNA(LoRA):
    """LoRA on the projections of Hyena models (arXiv:2306.15794), which have no attention to adapt."""

    Config = HyenaDNAConfig

    def check(self, model: "nn.Module") -> None:
        """Refuse models of another kind with a hint at what suits them."""
        try:
            super().check(model)
        except ConfigError as error:
            if self.config.target_modules != HYENA_MODULES:
                raise
            raise ConfigError(
                f"adapter.name={self.name} is LoRA for Hyena models, and this is not one. Did you mean "
                f"adapter.name=lora? {error}"
            ) from error
