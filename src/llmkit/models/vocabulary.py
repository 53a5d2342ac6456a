"""Tokens that a run adds to a model: the tokenizer, the embeddings and the output head grow together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AddedToken, PreTrainedTokenizerBase

from llmkit.config.schema import ModelConfig


@dataclass(frozen=True)
class Growth:
    """What a tokenizer has come to.

    Attributes:
        num_known: tokens before.
        token_ids: of the tokens that are new.
        superfluous: tokens that were asked for and known before.
    """

    num_known: int
    token_ids: tuple[int, ...] = ()
    superfluous: tuple[str, ...] = ()


def grows(config: ModelConfig) -> bool:
    """Whether a run asks for more rows than its model has."""
    return bool(config.add_tokens or config.add_special_tokens or config.pad_vocab_to_multiple_of)


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> Growth:
    """Give a tokenizer the tokens that it lacks of those asked for, in their order."""
    num_known = len(tokenizer)
    known = tokenizer.get_vocab()
    asked = [(token, False) for token in config.add_tokens] + [(token, True) for token in config.add_special_tokens]
    new = [(token, special) for token, special in asked if token not in known]
    for token, special in new:
        tokenizer.add_tokens([AddedToken(token, special=special, normalized=False)], special_tokens=special)
    ids = tokenizer.convert_tokens_to_ids([token for token, _ in new])
    assert isinstance(ids, list)
    return Growth(num_known, tuple(ids), tuple(token for token, _ in asked if token in known))


@torch.no_grad()
def grow_embeddings(model: Any, growth: Growth, multiple: int | None) -> None:
    """Give embeddings and output head a row for every token, and round their number up.

    A new row is the mean of the rows of the tokens that were known before, so that a new token is as likely as an old
    one is on average, and the others keep their order. Source: Hewitt 2021,
    nlp.stanford.edu/~johnhew/vocab-expansion.html.

    Args:
        model: of transformers, in which nothing is wrapped yet.
        growth: of its tokenizer.
        multiple: of which the number of rows is to be; None leaves it.
    """
    num_rows = model.get_input_embeddings().num_embeddings
    wanted = max([num_rows, *(token + 1 for token in growth.token_ids)])
    if multiple is not None:
        wanted = -(-wanted // multiple) * multiple
    if wanted > num_rows:
        # New rows begin at random before they get their values: that must not change what is drawn later.
        with torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(wanted, mean_resizing=False)
    # A model may have had rows to spare, which no token has trained.
    fresh = sorted({*growth.token_ids, *range(num_rows, wanted)})
    for weight in vocabulary_weights(model):
        _start_from_mean(weight, fresh, min(growth.num_known, num_rows))


def vocabulary_weights(model: Any) -> list[Tensor]:
    """What has one row for each token: embeddings, and the output head's weight and bias; shared ones once."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = [embedding.weight, *([head.weight, head.bias] if isinstance(head, nn.Linear) else [])]
    return list({id(weight): weight for weight in found if weight is not None}.values())


def is_tied(model: Any) -> bool:
    """Whether the output head is the embedding."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _start_from_mean(weight: Tensor, rows: Sequence[int], num_known: int) -> None:
    if rows:
        weight[torch.tensor(rows, device=weight.device)] = weight[:num_known].float().mean(dim=0).to(weight.dtype)
