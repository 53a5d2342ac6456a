"""The last layer's output projection and feed-forward part, at the tokens alone that something is predicted from.

Every token's keys and values are needed in every layer. After the attention of the last one nobody looks at another
token any more, so what nothing is predicted from is not computed.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.models.head import output_head
from llmkit.models.kernels import library
from llmkit.models.packed import keeping, packed_inputs, supports_packing
from llmkit.types import Batch

PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


def prepare(model: nn.Module) -> None:
    """Let a model's backbone give the hidden states of chosen tokens alone, where it is of the common form.

    Its attention layers are prepared before.
    """
    head = output_head(model) if supports_packing(model) else None
    layers = getattr(head.backbone, "layers", None) if head is not None else None
    if head is None or not isinstance(layers, nn.ModuleList) or not len(layers) or not _has_parts(layers[-1]):
        return
    last: Any = layers[-1]
    last.forward = MethodType(_forward, last)
    if _agrees(model, head.backbone):
        keeping.add(head.backbone)
    else:
        del last.forward


def _forward(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    *,
    kept: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    if kept is None:
        return type(self).forward(self, hidden_states, attention_mask=attention_mask, **kwargs)
    normed = self.input_layernorm(hidden_states)
    attended, _ = self.self_attn(hidden_states=normed, attention_mask=attention_mask, only=kept, **kwargs)
    hidden = hidden_states.index_select(1, kept) + attended
    return hidden + self.mlp(self.post_attention_layernorm(hidden))


def _has_parts(layer: Any) -> bool:
    """Whether it looks like the common form, with an attention that was prepared and nothing in place of its own
    forward."""
    return (
        all(isinstance(getattr(layer, name, None), nn.Module) for name in PARTS)
        and "forward" in vars(layer.self_attn)
        and "forward" not in vars(layer)
        and library.is_matrix(getattr(getattr(layer.self_attn, "q_proj", None), "weight", None))
    )


@torch.no_grad()
def _agrees(model: nn.Module, backbone: nn.Module) -> bool:
    """Whether chosen tokens alone have the hidden states that they have among all, which numbers show."""
    token_ids = torch.tensor([0, 1, 2, 1, 0])
    batch = Batch(token_ids, torch.tensor([0, 1, 2, 0, 1]), [3, 5], torch.ones(5))
    kept = torch.tensor([1, 3])
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        wanted = backbone(**packed_inputs(batch)).last_hidden_state[0, kept].float()
        found = backbone(**packed_inputs(batch), kept=kept).last_hidden_state[0].float()
    except (TypeError, RuntimeError):  # a model that hands nothing on to its layers, or takes something else
        return False
    finally:
        for module, mode in modes.items():
            module.training = mode
    error = 1e-5 if next(model.parameters()).dtype == torch.float32 else 0.05
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=error, atol=error)
