"""The output head of a model, taken apart so that it can run on chosen hidden states alone."""

import copy
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from llmkit.models.packed import goes_one_by_one
from llmkit.models.scoring import Scoring

PROBED = (-40.0, -3.0, -0.5, 0.0, 0.7, 5.0, 60.0)
"""Products that a head is asked about: far enough from 0 to feel any bound on them."""


class OutputHead(NamedTuple):
    """A model in two parts: `scoring.scores(linear(backbone(tokens)))` are its logits.

    Attributes:
        backbone: everything before the head.
        linear: the head itself.
        scoring: what the architecture does to the head's products.
    """

    backbone: nn.Module
    linear: nn.Linear
    scoring: Scoring


_known: WeakKeyDictionary[nn.Module, Scoring | None] = WeakKeyDictionary()


def output_head(model: nn.Module) -> OutputHead | None:
    """The parts of `model`, or None if it does not come apart in this way: see `OutputHead`.

    What the architecture does to the products is read from its configuration and checked once, on the model itself.
    """
    base = _without_adapter(model)
    if base is None:
        return None
    backbone, linear = getattr(base, base.base_model_prefix, None), base.get_output_embeddings()
    # A head in an adapter, a quantised one, or one that is divided among devices has a forward of its own.
    if type(linear) is not nn.Linear or isinstance(linear.weight, DTensor) or not isinstance(backbone, nn.Module):
        return None
    if base not in _known:
        scoring = configured_scoring(base)
        _known[base] = scoring if _comes_apart(base, backbone, linear, scoring) else None
    scoring = _known[base]
    return None if scoring is None else OutputHead(backbone, linear, scoring)


def base_of(model: nn.Module) -> nn.Module:
    """The transformers model within whatever is around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator] - PEFT's


def configured_scoring(model: PreTrainedModel) -> Scoring:
    """What the configuration says of the logits, by the names that architectures give it."""
    config = model.config.get_text_config()
    multiplied = float(getattr(config, "logit_scale", None) or 1.0)
    divided = float(getattr(config, "logits_scaling", None) or 1.0)
    return Scoring(scale=multiplied / divided, softcap=getattr(config, "final_logit_softcapping", None))


def _without_adapter(model: nn.Module) -> PreTrainedModel | None:
    """The transformers model within; None for what changes the forward of the whole model."""
    if not isinstance(model, PreTrainedModel) and hasattr(model, "get_base_model"):
        wrapped: Any = model
        # What stands beside each sequence is put there by the adapter's own forward.
        if goes_one_by_one(model):
            return None
        model = wrapped.get_base_model()
    return model if isinstance(model, PreTrainedModel) else None


@torch.no_grad()
def _comes_apart(model: PreTrainedModel, backbone: nn.Module, linear: nn.Linear, scoring: Scoring) -> bool:
    """Whether the head gets what the backbone gives, and the logits are what `scoring` makes of its products.

    It asks a copy that shares the parameters and has a recorder in place of each: the model itself stays as it is, for
    an engine may be sampling from it.
    """
    names = {id(child): name for name, child in model.named_children()}
    if id(backbone) not in names or id(linear) not in names:
        return False
    seen: dict[str, Any] = {}

    def run_backbone(*args: Any, **kwargs: Any) -> Any:
        seen["given"] = backbone.forward(*args, **kwargs)
        return seen["given"]

    def record(hidden: Tensor) -> Tensor:
        seen["taken"] = hidden
        return products

    device = linear.weight.device
    products = torch.tensor(PROBED, device=device).expand(1, 2, -1).contiguous()
    copied, before, head = copy.copy(model), copy.copy(backbone), copy.copy(linear)
    vars(before)["forward"], vars(head)["forward"] = run_backbone, record
    copied._modules = {**model._modules, names[id(backbone)]: before, names[id(linear)]: head}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        logits = copied(input_ids=torch.zeros(1, 2, dtype=torch.int64, device=device), use_cache=False).logits
    return (
        seen.keys() == {"given", "taken"}
        and torch.equal(seen["given"].last_hidden_state, seen["taken"])
        and logits.shape == products.shape
        and torch.allclose(scoring.scores(products), logits.float(), rtol=1e-5, atol=1e-5)
    )
