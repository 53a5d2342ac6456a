"""Memory by calculation: from shapes alone, before any weight is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llmkit import plugins
from llmkit.adapters.contract import Adapter
from llmkit.engines.training.engine_state import tensors_of
from llmkit.engines.training.parameter_groups import parameter_groups
from llmkit.errors import ConfigError
from llmkit.models.chunked_head import CHUNK_BYTES
from llmkit.models.kernels import library
from llmkit.models.linear_logprobs import KEPT_BYTES
from llmkit.models.loading import load_on_meta
from llmkit.models.policy import torch_device
from llmkit.models.quantizing import weight_bytes
from llmkit.terminal import note
from llmkit.train.adapting import begin_adapter
from llmkit.train.dry_run.workload import Workload

ACTIVATION_VALUES = 17
"""Numbers kept per token, layer and hidden unit for the backward pass without attention scores: half of the 34 bytes
that arXiv:2205.05198, equation 2, counts at two bytes each."""
BATCH_VALUES = 6
"""Eight-byte numbers per token of a micro-batch: ids, positions, weights, and what is indexed with them."""


def factored_bytes(weight: nn.Parameter) -> int:
    """Of second moments by row and by column (arXiv:1804.04235, section 3); of a vector, by number."""
    if weight.dim() < 2:
        return 4 * weight.numel()
    return 4 * (weight.numel() // weight.shape[-1] + weight.numel() // weight.shape[-2])


KNOWN: dict[str, Callable[[nn.Parameter], int]] = {
    "adamw_8bit": lambda weight: 2 * weight.numel(),
    "adafactor": factored_bytes,
}
"""Bytes that optimizers keep for a weight which cannot take a step without memory."""


@dataclass(frozen=True)
class Parts:
    """Bytes by what they are for.

    Attributes:
        weights: all weights, the reference model's copy included.
        gradients: of what trains.
        optimizer: what the optimizer and the average keep.
        activations: of the largest micro-batch.
        logits: of the loss head at work on it.
        kv_cache: of the completions that are sampled side by side.
        batch: its token ids, positions and weights.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    kv_cache: int
    batch: int

    @property
    def total(self) -> int:
        """At most at one time; the engine keeps its cache while training goes on."""
        training = self.gradients + self.activations + self.logits + self.batch
        return self.weights + self.optimizer + training + self.kv_cache


@dataclass(frozen=True)
class Sizes:
    """A model and what its training takes.

    Attributes:
        parameters: of the model, adapter included.
        trainable: those that train.
        hidden_size: numbers per token between layers.
    """

    parameters: int
    trainable: int
    hidden_size: int
    parts: Parts


def calculate(run: Any, load: Workload, total_steps: int) -> Sizes:
    """Count and calculate; weights are never loaded.

    Raises:
        ConfigError: the adapter does not fit the model.
    """
    model = load_on_meta(run.model)
    architecture = model.config.get_text_config()  # type: ignore[union-attr, operator] - a transformers model
    base_parameters = count(model)
    width = weight_width(run, model)
    base_bytes = weight_bytes(model, run.model.quantization, width)
    adapter = begin_adapter(run, total_steps, lambda count: [])  # a model without weights has no use for rows
    adapter.check(model)
    adapted = model.requires_grad_(False)
    if adapter.facts.sized_by_shapes:
        with torch.device("meta"):
            adapted = adapter.attach(model)
    parameters = count(adapted)
    trainable = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    if not trainable and adapter.facts.sized_by_shapes:
        raise ConfigError(f"adapter.name={run.adapter.name}: nothing of this model would train")
    compute = 2 if run.device.compute_dtype == "bfloat16" else width
    needs_reference = getattr(run.algorithm, "needs_reference", False)
    copies = 2 if needs_reference and not adapter.facts.keeps_base else 1
    average = 4 * trainable if run.optim.ema_decay else 0
    parts = Parts(
        weights=base_bytes * copies + (parameters - base_parameters) * width,
        gradients=trainable * width,
        optimizer=optimizer_bytes(run, adapted, adapter) * width // 4 + average,
        activations=activation_bytes(architecture, load.micro_tokens, compute, run.device.gradient_checkpointing),
        logits=head_bytes(
            architecture,
            load.trained_tokens,
            compute,
            head_trains=run.adapter.name == "full",
            in_place=torch_device(run.device).type == "cpu" and library.library() is not None,
        ),
        kv_cache=load.cached_tokens * cache_bytes_per_token(architecture, compute),
        batch=load.micro_tokens * BATCH_VALUES * 8,
    )
    return Sizes(parameters, trainable, architecture.hidden_size, parts)


def count(model: nn.Module) -> int:
    """Parameters of a model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def weight_width(run: Any, model: nn.Module) -> int:
    """Bytes of a weight that is not quantised."""
    if run.model.dtype == "auto":
        kind = getattr(model.config, "dtype", None)  # type: ignore[union-attr]
        return kind.itemsize if isinstance(kind, torch.dtype) else 4
    return getattr(torch, run.model.dtype).itemsize


def optimizer_bytes(run: Any, model: nn.Module, adapter: Adapter) -> int:
    """What the optimizer keeps for a model of float32 weights: it takes a step on weights that have no memory."""
    name = run.optim.optimizer.name
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    known = KNOWN.get(name)
    if known is None:
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        try:
            plugin = plugins.load("optimizers", name)
            optimizer = plugin.build(run.optim.optimizer, parameter_groups(model, run.optim, adapter))
            optimizer.step()
            return sum(state.numel() * state.element_size() for state in tensors_of(optimizer.state_dict()))
        except (RuntimeError, NotImplementedError):
            note(f"optim.optimizer={name}: taken to keep 8 bytes per weight")
            return 8 * sum(parameter.numel() for parameter in trained)
    return sum(map(known, trained))


def activation_bytes(architecture: Any, tokens: int, width: int, checkpointing: bool) -> int:
    """Bytes kept for the backward pass of `tokens` tokens."""
    hidden, layers = architecture.hidden_size, architecture.num_hidden_layers
    if checkpointing:
        return tokens * width * hidden * (layers + ACTIVATION_VALUES)
    return tokens * width * hidden * layers * ACTIVATION_VALUES


def head_bytes(architecture: Any, rows: int, width: int, *, head_trains: bool, in_place: bool) -> int:
    """Bytes that the loss head has in use: a chunk of products, what it keeps, its gradient.

    Args:
        in_place: whether scores and probabilities of the chunk need no memory of their own.
    """
    vocabulary = architecture.vocab_size
    chunk = min(rows * vocabulary, max(vocabulary, CHUNK_BYTES // 4))
    kept = min(rows * vocabulary * width, KEPT_BYTES) if head_trains else 0
    gradient = 4 * vocabulary * architecture.hidden_size if head_trains else 0
    return chunk * (width if in_place else 4 + 4 + width) + kept + gradient


def cache_bytes_per_token(architecture: Any, width: int) -> int:
    """Keys and values of one token in all layers."""
    heads = getattr(architecture, "num_key_value_heads", None) or architecture.num_attention_heads
    head = getattr(architecture, "head_dim", None) or architecture.hidden_size // architecture.num_attention_heads
    return 2 * architecture.num_hidden_layers * heads * head * width
