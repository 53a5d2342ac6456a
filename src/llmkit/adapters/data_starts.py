"""Starts that look at the model's inputs or gradients on training rows, in the packed forward pass of training."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.adapters.wrapping import quiet
from llmkit.errors import ConfigError
from llmkit.models.logprobs import supervised_positions, token_logprobs
from llmkit.models.packed import packed_logits
from llmkit.types import Batch

MAX_ROUNDS = 100
"""Rounds over the batches after which directions that have not settled count as never settling."""


def measure_covariances(model: nn.Module, config: Any, batches: Sequence[Batch]) -> None:
    """CorDA: leave on every target module the directions of its weight, ordered by its inputs.

    Args:
        config: PEFT's, with `corda_config`.
    """
    from peft.tuners.lora.corda import preprocess_corda

    @torch.no_grad()
    def look() -> None:
        for batch in batches:
            packed_logits(model, batch, torch.tensor([0], device=batch.token_ids.device))

    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        preprocess_corda(model, config, run_model=look)


def measure_gradients(model: nn.Module, config: Any, batches: Sequence[Batch]) -> None:
    """LoRA-GA: leave on every target module the gradient of the mean loss on the batches.

    Args:
        config: PEFT's, with `lora_ga_config`.
    """
    from peft.tuners.lora.loraga import preprocess_loraga

    def learn() -> None:
        for batch in batches:
            loss = -token_logprobs(model, batch)[0].mean()
            loss.backward()

    was_training = model.training
    with quiet():
        preprocess_loraga(model, config, learn)
    model.train(was_training)


class _Rounds:
    """Numbers of batches, again and again: PEFT asks until the directions settle, which they may never do."""

    def __init__(self, num_batches: int) -> None:
        self._num_batches = num_batches
        self._left = MAX_ROUNDS

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self._left == 0:
            raise ConfigError(
                f"the directions of the inputs have not settled after {MAX_ROUNDS} rounds over {self._num_batches} "
                "micro-batches; lower adapter.tau, or raise adapter.num_batches"
            )
        self._left -= 1
        return iter([{"number": torch.tensor(number)} for number in range(self._num_batches)])


def find_directions(model: Any, batches: Sequence[Batch], most: int) -> None:
    """EVA: set the first matrices to the principal directions of the inputs at trained tokens.

    Args:
        most: directions that a module may get.

    Raises:
        ConfigError: a batch has fewer trained tokens than that, so that directions cannot be told apart.
    """
    from peft.tuners.lora.eva import initialize_lora_eva_weights

    fewest = min(len(supervised_positions(batch)) for batch in batches)
    if fewest < most:
        raise ConfigError(
            f"adapter.r times adapter.rho asks for {most} directions, and a micro-batch of training rows has {fewest} "
            "trained tokens; lower adapter.r, or raise batch.tokens_per_micro_batch and the rows per step"
        )

    # PEFT moves what it is given to the model's device, and can do so with tensors alone: batches go by their number.
    def run(wrapped: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        batch = batches[int(inputs["number"])]
        return packed_logits(wrapped, batch, supervised_positions(batch) - 1)

    def positions(inputs: dict[str, Tensor], config: Any) -> Tensor:
        return supervised_positions(batches[int(inputs["number"])]) - 1

    def trained_tokens(layer_input: Any, chosen: Tensor, name: str) -> Tensor:
        hidden = layer_input[0] if isinstance(layer_input, tuple) else layer_input
        return hidden[0, chosen]

    with quiet():
        initialize_lora_eva_weights(
            model,
            _Rounds(len(batches)),
            forward_fn=run,
            prepare_model_inputs_fn=positions,
            prepare_layer_inputs_fn=trained_tokens,
            show_progress_bar=False,
        )
