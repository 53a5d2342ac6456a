"""AdaLoRA (arXiv:2303.10512): a budget of ranks that moves to the modules where it matters while training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from llmkit.adapters.auxiliary_loss import add_gradients
from llmkit.adapters.contract import QUANTISED, AdapterContext, Facts
from llmkit.adapters.peft_adapter import ExcludingConfig, PeftAdapter, Values
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class AdaLoRAConfig(ExcludingConfig):
    """Ranks at the start and at the end, and when they change."""

    start_r: int = Field(12, ge=2)
    """Rank of every module at the start."""
    target_r: int = Field(8, ge=1)
    """Mean rank of the modules at the end."""
    alpha: float = Field(32, gt=0)
    """The update is scaled by `alpha / start_r`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input; only supervised fine-tuning uses it."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the run's steps before ranks begin to fall."""
    final_fraction: float = Field(0.3, ge=0, lt=1)
    """Share of the run's steps at its end in which ranks stay."""
    every_steps: int = Field(10, ge=1)
    """Steps between changes of the ranks."""
    sensitivity_decay: float = Field(0.85, gt=0, lt=1)
    """Decay of the running mean of a weight's importance."""
    uncertainty_decay: float = Field(0.85, gt=0, lt=1)
    """Decay of the running mean of how much its importance varies."""
    orthogonal_weight: float = Field(0.5, ge=0)
    """Weight in the loss of how far the singular vectors are from orthogonal."""


class AdaLoRA(PeftAdapter):
    """AdaLoRA (arXiv:2303.10512): ranks move to the modules where they matter while the run goes on."""

    Config = AdaLoRAConfig
    peft_class = "AdaLoraConfig"
    facts = Facts(works_on_quantised=QUANTISED)
    renamed: ClassVar[Values] = {
        "start_r": "init_r", "alpha": "lora_alpha", "dropout": "lora_dropout", "every_steps": "deltaT",
        "sensitivity_decay": "beta1", "uncertainty_decay": "beta2", "orthogonal_weight": "orth_reg_weight",
    }  # fmt: skip
    own_options = frozenset({"warmup_fraction", "final_fraction"})

    def begin(self, context: AdapterContext) -> None:
        """Take the length of the run; refuse one that is too short for a schedule."""
        super().begin(context)
        chosen = self.config
        if chosen.target_r >= chosen.start_r:
            raise ConfigError(
                f"adapter.target_r={chosen.target_r} must be below adapter.start_r={chosen.start_r}: ranks only fall. "
                "For a fixed rank use adapter.name=lora"
            )
        if context.total_steps is None:
            raise ConfigError(f"adapter.name={self.name} needs the number of steps of the run; set max_steps")
        first, last = self.milestones(context.total_steps)
        if first >= context.total_steps - last:
            raise ConfigError(
                f"adapter.warmup_fraction={chosen.warmup_fraction:g} and adapter.final_fraction="
                f"{chosen.final_fraction:g} leave none of {context.total_steps} steps in which ranks fall; lower them, "
                "or train longer"
            )

    def milestones(self, total_steps: int) -> tuple[int, int]:
        """Steps at the start, and at the end, in which ranks stay."""
        return round(self.config.warmup_fraction * total_steps), round(self.config.final_fraction * total_steps)

    def peft_options(self) -> dict[str, Any]:
        """The options in PEFT's words, with the run's steps."""
        total_steps = self.context.total_steps
        assert total_steps is not None, "begin() refuses a run of unknown length"
        first, last = self.milestones(total_steps)
        return super().peft_options() | {"total_step": total_steps, "tinit": first, "tfinal": last}

    def before_update(self, model: Any) -> None:
        """Add the gradient of the orthogonality penalty, equation 4."""
        from llmkit.adapters.rank_budget import orthogonality

        if self.config.orthogonal_weight:
            add_gradients(self.config.orthogonal_weight * orthogonality(model))

    def after_update(self, model: Any, num_updates: int) -> None:
        """Weigh the importance of every rank, and cut what is over the budget."""
        import torch

        for parameter in model.parameters():
            # A step may have had nothing to learn from: reinforcement learning when all answers are equally good.
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        model.base_model.update_and_allocate(num_updates)

    def save(self, model: Any, directory: Path) -> None:
        """Write the adapter at its full rank, with zeros where ranks were cut, and the state of the budget."""
        from llmkit.adapters.adapter_files import adapter_state, write_adapter
        from llmkit.adapters.rank_budget import whole_ranks, write_budget

        with whole_ranks(model) as config:
            write_adapter(directory, config, adapter_state(model), keep=self.peft_options(), **self.base_model())
        write_budget(model, directory)

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """The adapter and the state of its budget; the schedule is this run's."""
        from llmkit.adapters.adapter_files import read_weights
        from llmkit.adapters.rank_budget import read_budget
        from llmkit.adapters.wrapping import load_state, wrap

        wrapped = wrap(model, self.peft_config(model), self.name)
        load_state(wrapped, read_weights(directory), directory)
        read_budget(wrapped, directory)
        return wrapped
