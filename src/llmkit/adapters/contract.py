"""What adapter plugins promise: they choose which weights train."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from llmkit.types import Batch

QUANTISED = ("bnb_4bit", "bnb_8bit")
"""What `model.quantization` may be, besides none, of bitsandbytes."""
TORCHAO = "torchao_int8"
"""What it may be of torchao."""


@dataclass(frozen=True)
class Facts:
    """What is true of an adapter with its present options. Tests hold every one of them against a model.

    Attributes:
        not_mergeable: why it cannot become part of the base model's weights; empty when it can.
        convertible_to_lora: whether its update is a matrix that is added to the weight, which a LoRA can stand for.
        needs_data: whether it looks at training rows before it starts.
        no_op_at_start: whether the model says what the base model says until the first step.
        keeps_base: whether the base weights stay as they are, so that the model without its adapter is the reference
            model.
        servable_by: inference engines that take its checkpoint as it is, without merging.
        works_on_quantised: what `model.quantization` may be, besides none.
        one_by_one: whether it puts something of its own beside each sequence. Sequences then go through the model one
            at a time instead of packed, and engines that sample cannot use it.
        sized_by_shapes: whether shapes alone say how many weights train, before any weight is read.
        is_random: whether a training pass draws numbers, even without dropout: two passes then differ by chance.
        trains_new_tokens: whether rows that a run adds to embeddings and output head train, and are in its checkpoints.
    """

    not_mergeable: str = ""
    convertible_to_lora: bool = False
    needs_data: bool = False
    no_op_at_start: bool = True
    keeps_base: bool = True
    servable_by: tuple[str, ...] = ()
    works_on_quantised: tuple[str, ...] = ()
    one_by_one: bool = False
    sized_by_shapes: bool = True
    is_random: bool = False
    trains_new_tokens: bool = False


@dataclass(frozen=True)
class AdapterContext:
    """What a run tells its adapter.

    Attributes:
        base_model: path or name of the base model, recorded in checkpoints.
        revision: of the base model, when it is a Hugging Face name.
        total_steps: optimizer steps of the whole run; None where nothing trains.
        draw_batches: draws that many batches of training rows without moving the run's place in its data; None where
            there is no data.
        quantization: of the base model's weights.
        load_whole: loads the base model once more, with whole weights on the CPU.
        new_tokens: ids of the tokens that the run adds to the model.
        pads_vocabulary: whether the run adds rows to the model that are of no token.
    """

    base_model: str | None = None
    revision: str | None = None
    total_steps: int | None = None
    draw_batches: "Callable[[int], Sequence[Batch]] | None" = None
    quantization: str = "none"
    load_whole: "Callable[[], nn.Module] | None" = None
    new_tokens: tuple[int, ...] = ()
    pads_vocabulary: bool = False


class Adapter:
    """Prepares a model for training; plugins derive from it. `build(config) -> Adapter` makes one.

    `attach` and `restore` are for the plugin to write. Everything else suits an adapter that is a model of ordinary
    weights and has no schedule.
    """

    facts: Facts = Facts(keeps_base=False)

    def begin(self, context: AdapterContext) -> None:
        """Hear what the run knows, before anything else.

        Raises:
            ConfigError: this run cannot use the adapter, by its settings alone.
        """

    def check(self, model: "nn.Module") -> None:
        """Refuse a model that the adapter does not fit, before its weights are loaded.

        Args:
            model: on the meta device.

        Raises:
            ConfigError: names the setting, what the model has, and the way out.
        """

    def attach(self, model: "nn.Module") -> "nn.Module":
        """The model to train: the same one, or a wrapper, with `requires_grad` set on what trains and nothing else.

        Raises:
            ConfigError: the adapter does not fit this model.
        """
        raise NotImplementedError

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """The same for a model that goes on from the checkpoint in `directory`.

        Args:
            model: the base model, as `attach` would get it.
        """
        raise NotImplementedError

    def save(self, model: Any, directory: Path) -> None:
        """Write what `restore` reads, for a model that `attach` or `restore` gave."""
        model.save_pretrained(directory)

    def merge(self, model: Any) -> "nn.Module":
        """The model with the adapter's update in its own weights; `model` is used up.

        Raises:
            ConfigError: it cannot be merged; says why.
        """
        return model

    def save_as_lora(self, model: Any, directory: Path, rank: int | None = None) -> None:
        """Write the update as a plain LoRA for the base model.

        Args:
            rank: of every module; None takes what the update needs.

        Raises:
            ConfigError: the update is not a matrix that is added to the weight.
        """
        raise ConfigError("this adapter has no update that a LoRA could stand for; serve the merged model")

    def learning_rate_ratio(self, name: str) -> float:
        """How many times the run's learning rate the parameter of this name gets."""
        return 1.0

    def before_update(self, model: Any) -> None:
        """Called when a step's gradients are complete, before they are clipped; may add to them."""

    def after_update(self, model: Any, num_updates: int) -> None:
        """Called after an optimizer step while its gradients are still there.

        Args:
            num_updates: optimizer steps of the run so far, this one included.
        """
