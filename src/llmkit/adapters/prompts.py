"""Adapters that leave the weights alone: trained vectors in front of a sequence, or beside its attention."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from llmkit.adapters.contract import QUANTISED, Facts
from llmkit.adapters.peft_adapter import PeftAdapter, Values
from llmkit.config.section import Section
from llmkit.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import nn

ENCODER = "prompt_encoder.safetensors"
"""The network of `p_tuning` beside its checkpoint."""
IN_FRONT = Facts(
    not_mergeable="it is a prompt of trained vectors, not an update of weights",
    no_op_at_start=False,
    works_on_quantised=QUANTISED,
    one_by_one=True,
)


class VirtualTokensConfig(Section):
    """How long the trained prompt is."""

    num_virtual_tokens: int = Field(20, ge=1)
    """Trained vectors in front of each sequence; they count against the model's context."""


class SoftPrompt(PeftAdapter):
    """What adapters with virtual tokens share."""

    facts = IN_FRONT

    def check(self, model: "nn.Module") -> None:
        """Refuse more virtual tokens than the model can take."""
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)  # type: ignore[union-attr, operator]
        if limit is not None and self.config.num_virtual_tokens >= limit:
            raise ConfigError(
                f"adapter.num_virtual_tokens={self.config.num_virtual_tokens} leaves nothing of the model's context of "
                f"{limit} tokens"
            )


class PromptTuning(SoftPrompt):
    """Prompt tuning (arXiv:2104.08691): trained embeddings in front of each sequence."""

    Config = VirtualTokensConfig
    peft_class = "PromptTuningConfig"


class PTuningConfig(VirtualTokensConfig):
    """How long the trained prompt is, and what makes it."""

    encoder: Literal["MLP", "LSTM"] = "MLP"
    """Network that turns trained vectors into embeddings."""
    encoder_width: int | None = Field(None, ge=1)
    """Its hidden width; unset is the model's."""
    encoder_layers: int = Field(2, ge=1)
    """Its layers, for `LSTM`."""
    encoder_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in it, for `LSTM`; only supervised fine-tuning uses it."""


class PTuning(SoftPrompt):
    """P-tuning (arXiv:2103.10385): a small network makes the embeddings in front of each sequence."""

    Config = PTuningConfig
    peft_class = "PromptEncoderConfig"
    renamed: ClassVar[Values] = {
        "encoder": "encoder_reparameterization_type",
        "encoder_width": "encoder_hidden_size",
        "encoder_layers": "encoder_num_layers",
    }

    def save(self, model: Any, directory: Path) -> None:
        """Write what PEFT reads, which is the embeddings alone, and the network that makes them, to train on."""
        from safetensors.torch import save_file

        super().save(model, directory)
        save_file(model.prompt_encoder["default"].state_dict(), directory / ENCODER)

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """The prompt with its network."""
        from safetensors.torch import load_file

        from llmkit.adapters.wrapping import wrap

        wrapped: Any = wrap(model, self.peft_config(model), self.name)
        try:
            wrapped.prompt_encoder["default"].load_state_dict(load_file(directory / ENCODER))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{directory / ENCODER}: the prompt's network cannot be restored: {error}") from error
        return wrapped


class PrefixTuningConfig(VirtualTokensConfig):
    """How long the prefix is, and how it begins."""

    start: Literal["random", "zero"] = "random"
    """First values of the trained keys and values."""


class PrefixTuning(SoftPrompt):
    """Prefix tuning (arXiv:2101.00190): trained keys and values in front of each sequence, in every layer."""

    Config = PrefixTuningConfig
    peft_class = "PrefixTuningConfig"
    own_options = frozenset({"start"})

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words."""
        return super().peft_options() | ({"init_weights": "zero"} if self.config.start == "zero" else {})


class CartridgeConfig(VirtualTokensConfig):
    """How long the cartridge is, and how much of it stays."""

    num_frozen_tokens: int = Field(1, ge=0)
    """First virtual tokens that do not train; they catch attention that has nowhere else to go."""


class Cartridge(SoftPrompt):
    """Cartridges (arXiv:2506.06266): a trained cache of keys and values in front of each sequence."""

    Config = CartridgeConfig
    peft_class = "CartridgeConfig"

    def check(self, model: "nn.Module") -> None:
        """Refuse a cartridge of which nothing trains."""
        super().check(model)
        if self.config.num_frozen_tokens >= self.config.num_virtual_tokens:
            raise ConfigError(
                f"adapter.num_frozen_tokens={self.config.num_frozen_tokens} leaves none of "
                f"adapter.num_virtual_tokens={self.config.num_virtual_tokens} to train"
            )


class AdaptionPromptConfig(Section):
    """How long the prompts are, and where."""

    length: int = Field(10, ge=1)
    """Trained vectors in each layer."""
    layers: int = Field(30, ge=1)
    """Layers that have them, counted from the top; of a smaller model, all."""


class AdaptionPrompt(PeftAdapter):
    """LLaMA-Adapter (arXiv:2303.16199): trained prompts that a gate lets into attention, from nothing."""

    Config = AdaptionPromptConfig
    peft_class = "AdaptionPromptConfig"
    facts = replace(IN_FRONT, no_op_at_start=True, one_by_one=False)
    renamed: ClassVar[Values] = {"length": "adapter_len", "layers": "adapter_layers"}

    def check(self, model: "nn.Module") -> None:
        """Refuse models whose attention PEFT does not know."""
        from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG as KNOWN

        kind = model.config.model_type  # type: ignore[union-attr] - a transformers model
        if kind not in KNOWN:
            raise ConfigError(
                f"adapter.name={self.name} works on models of the kind {', '.join(sorted(KNOWN))}, and this is {kind}; "
                "use adapter.name=lora"
            )

    def peft_config(self, model: "nn.Module", *, plain: bool = False) -> Any:
        """PEFT's configuration; of a small model, every layer."""
        config = super().peft_config(model, plain=plain)
        count = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator] - as above
        config.adapter_layers = min(config.adapter_layers, count)
        return config


class AdaliPrompt(AdaptionPrompt):
    """Another name of `adaption_prompt`."""

    alias_of = "adaption_prompt"
