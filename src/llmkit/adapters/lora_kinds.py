"""Forms of LoRA with a mechanism of their own in the two matrices or between them."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from llmkit.adapters.auxiliary_loss import add_gradients
from llmkit.adapters.contract import Facts
from llmkit.adapters.lora import LoRA, LowRankConfig
from llmkit.adapters.peft_adapter import Values
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class MiCA(LoRA):
    """Minor component adaptation (arXiv:2604.01694): the directions that the weight uses least; one matrix trains."""

    Config = LowRankConfig
    facts = replace(LoRA.facts, works_on_quantised=())
    fixed: ClassVar[Values] = {"init_lora_weights": "mica"}

    def check(self, model: "nn.Module") -> None:
        """Refuse a rank that a module does not have."""
        super().check(model)
        check_rank_fits(self, model)


class KaSAConfig(LowRankConfig):
    """LoRA's options and the weights of two penalties."""

    beta: float = Field(1e-4, ge=0)
    """Weight of the squared singular values of the update in the loss."""
    gamma: float = Field(1e-3, ge=0)
    """Weight of how far the two matrices are from orthogonal."""


class KaSA(LoRA):
    """Knowledge-aware singular values (arXiv:2412.06071): cuts the weight's smallest directions, trains in SVD form."""

    Config = KaSAConfig
    facts = Facts(no_op_at_start=False, keeps_base=False, trains_new_tokens=True)
    own_options = LoRA.own_options | {"beta", "gamma"}

    def peft_options(self) -> dict[str, Any]:
        """The options with the penalties where PEFT has them."""
        from peft import KasaConfig

        return super().peft_options() | {"kasa_config": KasaConfig(beta=self.config.beta, gamma=self.config.gamma)}

    def check(self, model: "nn.Module") -> None:
        """Refuse a rank that a module does not have."""
        super().check(model)
        check_rank_fits(self, model)

    def before_update(self, model: Any) -> None:
        """Add the gradient of the penalties, equations 9 to 12."""
        add_gradients(model.base_model._get_kasa_loss())


class VeLoRAConfig(LowRankConfig):
    """LoRA's options and how the stored activations are compressed."""

    num_groups: int = Field(32, ge=1)
    """Parts that a token's activations are divided into; must divide the input of every adapted module."""
    scale: float = Field(1.0, gt=0)
    """Factor on what is restored in the backward pass."""


class VeLoRA(LoRA):
    """Rank-one projections of activations (arXiv:2405.17991): less memory for an approximate gradient."""

    Config = VeLoRAConfig
    facts = replace(LoRA.facts, works_on_quantised=())
    own_options = LoRA.own_options | {"num_groups", "scale"}

    def peft_options(self) -> dict[str, Any]:
        """The options with the compression where PEFT has it."""
        from peft import VeloraConfig

        settings = VeloraConfig(num_groups=self.config.num_groups, scale=self.config.scale)
        return super().peft_options() | {"velora_config": settings}

    def check(self, model: "nn.Module") -> None:
        """Refuse parts that do not divide an input."""
        from llmkit.adapters.divisibility import check_divides

        super().check(model)
        check_divides(model, self.config, "num_groups", self.config.num_groups, of="in")


class BDLoRAConfig(LowRankConfig):
    """LoRA's options and which matrix of which module is divided."""

    divided_inputs: tuple[str, ...] = ("o_proj", "down_proj")
    """Modules whose first matrix (A) is block-diagonal: those that tensor parallelism cuts along their inputs."""
    divided_outputs: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    """Modules whose second matrix (B) is block-diagonal: those that it cuts along their outputs."""
    num_blocks: int = Field(2, ge=1)
    """Blocks on the diagonal: the number of devices that will serve it; must divide the rank and the widths."""


class BDLoRA(LoRA):
    """Block-diagonal LoRA: tensor parallelism serves its blocks without exchanging anything between devices."""

    Config = BDLoRAConfig
    facts = replace(LoRA.facts, convertible_to_lora=False, servable_by=(), works_on_quantised=())
    own_options = LoRA.own_options | {"divided_inputs", "divided_outputs", "num_blocks"}

    def peft_options(self) -> dict[str, Any]:
        """The options with the blocks where PEFT has them."""
        from peft.tuners.lora.config import BdLoraConfig

        settings = BdLoraConfig(
            target_modules_bd_a=list(self.config.divided_inputs),
            target_modules_bd_b=list(self.config.divided_outputs),
            nblocks=self.config.num_blocks,
            match_strict=False,
        )
        return super().peft_options() | {"use_bdlora": settings}

    def check(self, model: "nn.Module") -> None:
        """Refuse blocks that do not divide."""
        from llmkit.adapters.divisibility import check_divides

        super().check(model)
        check_divides(model, self.config, "num_blocks", self.config.num_blocks, of="both")
        if self.config.r % self.config.num_blocks:
            raise ConfigError(
                f"adapter.r={self.config.r} is not a multiple of adapter.num_blocks={self.config.num_blocks}"
            )


def check_rank_fits(adapter: LoRA, model: "nn.Module") -> None:
    """Refuse a rank above the smaller side of an adapted module.

    Raises:
        ConfigError: names the module and its shape.
    """
    from llmkit.adapters.divisibility import module_widths

    for name, side, width in module_widths(model, adapter.config):
        if adapter.config.r > width:
            raise ConfigError(
                f"adapter.r={adapter.config.r} is more than {name} can have: it has {width} {side}puts. Lower "
                "adapter.r, or leave the module out of adapter.target_modules"
            )
