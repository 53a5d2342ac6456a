"""Why no token could be drawn for a row."""

from torch import Tensor

from llmkit.engines.inference.sampling.state import SamplerState
from llmkit.errors import EngineError, RequestError


def failure_of(logits: Tensor, state: SamplerState) -> EngineError:
    """The error of a row with [V] logits that left nothing to draw."""
    where = f"token {state.num_drawn + 1} of the completion"
    if bool(logits.isnan().any()) or bool((logits == float("inf")).any()):
        return EngineError(f"{where}: the model's logits are not numbers; its weights or its precision are broken")
    if bool((logits == float("-inf")).all()):
        return EngineError(f"{where}: the model's logits are all -inf; its weights or its precision are broken")
    if state.structure is not None and state.structure.error:
        return RequestError(f"{where}: the structure cannot go on: {state.structure.error}")
    settings = ", ".join(_masking(state))
    return RequestError(f"{where}: {settings} together leave no token to draw; loosen one of them")


def _masking(state: SamplerState) -> list[str]:
    """Names of the settings that forbid tokens to this row now."""
    sampling = state.sampling
    named = {
        "allowed_token_ids": sampling.allowed_token_ids is not None,
        "banned_token_ids": bool(sampling.banned_token_ids),
        "structure": sampling.structure is not None,
        f"min_new_tokens={sampling.min_new_tokens}": state.must_go_on,
        "logit_bias": bool(sampling.logit_bias),
    }
    return [name for name, is_set in named.items() if is_set] or ["the model's logits and the tokenizer's vocabulary"]
