"""Log-probabilities of tokens under a model."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmkit.memory import during
from llmkit.models.head import output_head
from llmkit.models.linear_logprobs import linear_logprobs
from llmkit.models.packed import packed_hidden, packed_logits
from llmkit.models.scoring import TokenLogprobs
from llmkit.types import Batch


def supervised_positions(batch: Batch) -> Tensor:
    """[N] indices t of the tokens that carry loss. The first token of a sequence cannot: nothing comes before it."""
    return batch.loss_weights.nonzero().flatten()


def predicting_positions(batch: Batch, positions: Tensor) -> Tensor:
    """[N] where each of the tokens at `positions` is predicted from: the place before it in its own sequence."""
    if batch.prefixes is None:
        return positions - 1
    before = torch.arange(-1, len(batch.token_ids) - 1)
    for start, (_, end) in zip([0, *batch.sequence_ends[:-1]], batch.prefixes, strict=True):
        if end:
            before[start] = end - 1
    return before.to(positions.device)[positions]


def token_logprobs(
    model: nn.Module,
    batch: Batch,
    *,
    temperature: float = 1.0,
    entropy: Literal["none", "value", "gradient"] = "none",
    mean_logprobs: bool = False,
    loss_scales: Tensor | None = None,
) -> TokenLogprobs:
    """Log-probability of each token that carries loss, given what is before it.

    Args:
        temperature: divides the logits, as the sampler did.
        entropy: whether to measure the entropy of each of those distributions, and whether a gradient flows through it.
        mean_logprobs: also measure the mean log-probability over the vocabulary; a gradient flows through it.
        loss_scales: [N] factors, when the loss is `c * sum(loss_scales * logprobs)`; see `linear_logprobs`.
    """
    positions = supervised_positions(batch)
    places = predicting_positions(batch, positions)
    targets = batch.token_ids[positions]
    head = output_head(model)
    size = f"a micro-batch of {len(batch.token_ids):,} tokens ({len(batch.sequence_ends):,} sequences)"
    if head is not None:
        with during("forward", f"the forward pass of {size}"):
            hidden = packed_hidden(model, head.backbone, batch, places)
        weight = head.linear.weight
        with during("head", f"the loss head of {size}: {len(targets):,} trained ones by {len(weight):,} words"):
            return linear_logprobs(
                hidden,
                weight,
                head.linear.bias,
                targets,
                scoring=replace(head.scoring, temperature=temperature),
                entropy=entropy,
                mean_logprobs=mean_logprobs,
                loss_scales=loss_scales,
            )
    with during("forward", f"the forward pass of {size}"):
        logits = packed_logits(model, batch, places).float()
    if temperature != 1.0:
        logits = logits / temperature
    logprobs = -F.cross_entropy(logits, targets, reduction="none")
    return TokenLogprobs(
        logprobs,
        None if entropy == "none" else entropies(logits if entropy == "gradient" else logits.detach()),
        # The mean over log-softmax without making it: its normalizer is known from the target's.
        logits.mean(dim=-1) - logits.gather(-1, targets[:, None])[:, 0] + logprobs if mean_logprobs else None,
    )


def entropies(logits: Tensor) -> Tensor:
    """[N] entropies, nats, of the distributions that [N, V] logits stand for."""
    logprobs = torch.log_softmax(logits, dim=-1)
    return -(logprobs.exp() * logprobs).sum(dim=-1)
