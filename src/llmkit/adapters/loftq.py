"""LoftQ (arXiv:2310.08659): 4-bit weights and an adapter that begins with what they have lost."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.adapters.contract import AdapterContext
from llmkit.adapters.lora import LoRA, LowRankConfig
from llmkit.adapters.lora_kinds import check_rank_fits
from llmkit.adapters.peft_adapter import Values
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class LoftQ(LoRA):
    """LoftQ (arXiv:2310.08659): begins with what 4-bit weights have lost against the whole ones."""

    Config = LowRankConfig
    facts = replace(LoRA.facts, no_op_at_start=False, works_on_quantised=("bnb_4bit",))
    packages: ClassVar[Values] = {"bitsandbytes": "bitsandbytes"}
    EXTRA = "quantization"

    def begin(self, context: AdapterContext) -> None:
        """Refuse whole weights, of which nothing is lost."""
        super().begin(context)
        if context.quantization == "none":
            raise ConfigError(
                f"adapter.name={self.name} makes up for the rounding of 4-bit weights, and model.quantization is none; "
                "set model.quantization=bnb_4bit, or use adapter.name=pissa"
            )

    def check(self, model: "nn.Module") -> None:
        """Refuse a rank that a module does not have."""
        super().check(model)
        check_rank_fits(self, model)

    def start(self, model: Any) -> None:
        """Load the whole weights once more, and set the first update to the difference."""
        from llmkit.adapters.rounding import fit_rounding

        assert self.context.load_whole is not None, "a run with quantised weights can load the whole ones"
        fit_rounding(model, self.context.load_whole())
