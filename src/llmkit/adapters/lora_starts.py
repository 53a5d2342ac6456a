"""LoRA that begins from the weights, from training rows or from a quantised base instead of from zero."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from llmkit.adapters.contract import QUANTISED, AdapterContext, Facts
from llmkit.adapters.lora import LORA_SERVERS, LoRA, LowRankConfig
from llmkit.adapters.lora_kinds import check_rank_fits
from llmkit.adapters.peft_adapter import Values
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

FROM_NOTHING = {"init_lora_weights": True}


class ResidualLoRA(LoRA):
    """A LoRA whose first update is taken out of the base weights, so that base and update together start unchanged.

    In a checkpoint it is a plain LoRA of twice the rank for the untouched base model: the trained update less the first
    one. Servers need not know of it, and a resumed run takes both out of it again.
    """

    facts = Facts(convertible_to_lora=True, keeps_base=False, servable_by=LORA_SERVERS, trains_new_tokens=True)
    start_settings: ClassVar[Values] = FROM_NOTHING

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._first: dict[str, Tensor] = {}

    def check(self, model: "nn.Module") -> None:
        """Refuse a rank that a module does not have."""
        super().check(model)
        check_rank_fits(self, model)

    def start(self, model: Any) -> None:
        """Keep the first update."""
        from llmkit.adapters.residual import copy_factors

        self._first = copy_factors(model)

    def save(self, model: Any, directory: Path) -> None:
        """Write the difference from the untouched base model."""
        from llmkit.adapters.adapter_files import adapter_state, write_adapter
        from llmkit.adapters.residual import as_plain_lora, doubled

        config = model.peft_config["default"]
        state = as_plain_lora(adapter_state(model), self._first)
        changes = {**self.start_settings, **doubled(config), **self.base_model()}
        write_adapter(directory, config, state, keep=self.peft_options(), **changes)

    def save_as_lora(self, model: Any, directory: Path, rank: int | None = None) -> None:
        """Write the difference from the untouched base model, which is a plain LoRA already."""
        if rank is not None:
            raise ConfigError(
                f"adapter.name={self.name}: its checkpoint is a plain LoRA already, of rank {2 * self.config.r}"
            )
        self.save(model, directory)

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """Take the first update out of the base weights again, bit for bit, and go on with the trained one."""
        from llmkit.adapters.adapter_files import read_weights
        from llmkit.adapters.residual import subtract_first, without_first
        from llmkit.adapters.wrapping import load_state, wrap

        wrapped = wrap(model, self.peft_config(model, plain=True), self.name)
        state, self._first = without_first(read_weights(directory))
        load_state(wrapped, state, directory)
        subtract_first(wrapped, self._first)
        return wrapped


class PiSSAConfig(LowRankConfig):
    """LoRA's options and how the singular vectors are found."""

    iterations: int = Field(0, ge=0)
    """Power iterations of a fast approximate decomposition; 0 computes the exact one, minutes for a large model."""


class PiSSA(ResidualLoRA):
    """Principal singular values and vectors (arXiv:2404.02948): trains the weight's strongest directions."""

    Config = PiSSAConfig
    own_options = LoRA.own_options | {"iterations"}

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words."""
        count = self.config.iterations
        return super().peft_options() | {"init_lora_weights": f"pissa_niter_{count}" if count else "pissa"}


class OLoRA(ResidualLoRA):
    """Orthonormal LoRA (arXiv:2406.01775): begins with a QR decomposition of the weight."""

    Config = LowRankConfig
    fixed: ClassVar[Values] = {"init_lora_weights": "olora"}


class CorDAConfig(LowRankConfig):
    """LoRA's options, and what the weight's directions are ordered by."""

    method: Literal["ipm", "kpm"] = "ipm"
    """`ipm` trains the directions that the rows use most; `kpm` those that they use least, to keep what is known."""
    num_batches: int = Field(8, ge=1)
    """Micro-batches of training rows to look at."""


class CorDA(ResidualLoRA):
    """Context-oriented decomposition (arXiv:2406.05223): the weight's directions ordered by training rows."""

    Config = CorDAConfig
    EXTRA = "adapters"
    facts = replace(ResidualLoRA.facts, needs_data=True)
    own_options = LoRA.own_options | {"method", "num_batches"}
    packages: ClassVar[Values] = {"attr": "attrs"}
    start_settings: ClassVar[Values] = FROM_NOTHING | {"corda_config": None}

    def begin(self, context: AdapterContext) -> None:
        """Refuse a run without rows to look at."""
        super().begin(context)
        need_data(self, context)

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words."""
        from peft.tuners.lora.config import CordaConfig

        settings = CordaConfig(corda_method=self.config.method)
        return super().peft_options() | {"init_lora_weights": "corda", "corda_config": settings}

    def attach(self, model: "nn.Module") -> "nn.Module":
        """The wrapped model, after a look at its inputs on training rows."""
        from llmkit.adapters.data_starts import measure_covariances
        from llmkit.adapters.wrapping import is_on_meta

        self.check(model)
        if not is_on_meta(model):
            assert self.context.draw_batches is not None, "begin() refuses a run without rows"
            measure_covariances(model, self.peft_config(model), self.context.draw_batches(self.config.num_batches))
        return super().attach(model)


class LoRAGAConfig(LowRankConfig):
    """LoRA's options, and how the gradient becomes the first matrices."""

    direction: Literal["ArBr", "A2rBr", "ArB2r", "random"] = "ArB2r"
    """Which singular vectors of the gradient go into which matrix."""
    scale: Literal["stable", "weight_svd", "gd_scale", "unit"] = "stable"
    """How large the first matrices are."""
    stable_gamma: int = Field(16, ge=1)
    """Divisor for `scale=stable`; higher begins with a smaller update."""
    num_batches: int = Field(8, ge=1)
    """Micro-batches of training rows whose gradient is taken."""


class LoRAGA(ResidualLoRA):
    """LoRA-GA (arXiv:2407.05000): begins along the gradient of the full weights on training rows."""

    Config = LoRAGAConfig
    facts = replace(ResidualLoRA.facts, needs_data=True)
    own_options = LoRA.own_options | {"direction", "scale", "stable_gamma", "num_batches"}
    start_settings: ClassVar[Values] = FROM_NOTHING | {"lora_ga_config": None}

    def begin(self, context: AdapterContext) -> None:
        """Refuse a run without rows to look at."""
        super().begin(context)
        need_data(self, context)

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words."""
        from peft import LoraGAConfig as GradientSettings

        chosen = self.config
        settings = GradientSettings(direction=chosen.direction, scale=chosen.scale, stable_gamma=chosen.stable_gamma)
        return super().peft_options() | {"init_lora_weights": "lora_ga", "lora_ga_config": settings}

    def attach(self, model: "nn.Module") -> "nn.Module":
        """The wrapped model, after a backward pass over training rows."""
        from llmkit.adapters.data_starts import measure_gradients
        from llmkit.adapters.wrapping import is_on_meta

        self.check(model)
        if not is_on_meta(model):
            assert self.context.draw_batches is not None, "begin() refuses a run without rows"
            batches = self.context.draw_batches(self.config.num_batches)
            measure_gradients(model, self.peft_config(model), batches)
        return super().attach(model)


class EVAConfig(LowRankConfig):
    """LoRA's options, and how far ranks move between modules."""

    rho: float = Field(2.0, ge=1)
    """A module gets at most `rho * r`; 1 gives every module `r`."""
    tau: float = Field(0.99, gt=0, le=1)
    """Directions count as found when they change by less than this cosine between batches."""
    whiten: bool = False
    """Divide directions by the spread of the inputs along them."""
    num_batches: int = Field(8, ge=1)
    """Micro-batches of training rows to look at, again and again until the directions are found."""


class EVA(LoRA):
    """Explained variance adaptation (arXiv:2410.07170): begins with the directions of its inputs on training rows."""

    Config = EVAConfig
    facts = Facts(convertible_to_lora=True, needs_data=True, works_on_quantised=QUANTISED)
    own_options = LoRA.own_options | {"rho", "tau", "whiten", "num_batches"}
    start_settings: ClassVar[Values] = FROM_NOTHING | {"eva_config": None}

    @classmethod
    def facts_of(cls, config: Any) -> Facts:
        """With ranks of their own for modules, servers of LoRA refuse it."""
        plain = config.rho == 1 and not (config.modules_to_save or config.rank_pattern or config.alpha_pattern)
        return replace(cls.facts, servable_by=LORA_SERVERS if plain else ())

    def begin(self, context: AdapterContext) -> None:
        """Refuse a run without rows to look at."""
        super().begin(context)
        need_data(self, context)

    def check(self, model: "nn.Module") -> None:
        """Refuse more directions than a module has inputs."""
        from llmkit.adapters.divisibility import module_widths

        super().check(model)
        most = round(self.config.r * self.config.rho)
        for name, side, width in module_widths(model, self.config):
            if side == "in" and width < most:
                raise ConfigError(
                    f"adapter.r={self.config.r} times adapter.rho={self.config.rho:g} is {most}, and {name} has "
                    f"{width} inputs, so no more directions than that; lower one of them"
                )

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words."""
        from peft.tuners.lora.config import EvaConfig as VarianceSettings

        settings = VarianceSettings(rho=self.config.rho, tau=self.config.tau, whiten=self.config.whiten)
        return super().peft_options() | {"init_lora_weights": "eva", "eva_config": settings}

    def start(self, model: Any) -> None:
        """Find the directions; the model's configuration then says the ranks that came of it."""
        from llmkit.adapters.data_starts import find_directions

        assert self.context.draw_batches is not None, "begin() refuses a run without rows"
        batches = self.context.draw_batches(self.config.num_batches)
        find_directions(model, batches, round(self.config.r * self.config.rho))
        config = model.peft_config["default"]
        for setting, value in self.start_settings.items():
            setattr(config, setting, value)


def need_data(adapter: LoRA, context: AdapterContext) -> None:
    """Refuse a run that has no rows of its own before it trains.

    Raises:
        ConfigError: names what to use instead.
    """
    if context.draw_batches is None:
        raise ConfigError(
            f"adapter.name={adapter.name} looks at training rows before it starts, and this run has none: its answers "
            "are sampled while it trains. Use adapter.name=pissa or lora, or train sft first"
        )
