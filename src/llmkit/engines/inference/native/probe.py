"""Whether a model can run packed over a paged cache: it is tried, and compared with the model's own forward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.engines.inference.native.generating import generating
from llmkit.engines.inference.native.packed_runner import ModelInputs, PackedRunner, packed_forward
from llmkit.engines.inference.native.paged_attention import LayerShape
from llmkit.engines.inference.native.runner import Step
from llmkit.models.packed import ATTENTION_LAYERS, AttentionPlan, goes_one_by_one
from llmkit.models.policy import Policy

LONG, SHORT, CHUNK = 6, 3, 4
"""Tokens of the prompts of the two sequences that are tried, and of the first part of the longer one."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference of logits, as a share of the largest logit."""


class _Recorder(AttentionPlan):
    """Notes what each layer keeps."""

    def __init__(self, kept_dtype: torch.dtype | None) -> None:
        self.shapes: list[LayerShape] = []
        self.num_windows = 0
        self._kept_dtype = kept_dtype

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float, **options: Any
    ) -> Tensor:
        self.num_windows += bool(options.get("sliding_window"))
        kept = self._kept_dtype
        self.shapes.append(
            LayerShape(key.shape[1], key.shape[3], value.shape[3], kept or key.dtype, kept or value.dtype)
        )
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3], dtype=value.dtype)


@torch.inference_mode()
def packed_runner(policy: Policy, make: Callable[[Policy, list[LayerShape]], PackedRunner] = PackedRunner,
                  ) -> PackedRunner | str:  # fmt: skip
    """A runner for the policy's model, or why it cannot run packed.

    Args:
        make: the runner, of the policy and what its attention layers keep.
    """
    model: Any = policy.model
    if goes_one_by_one(model):
        return "its adapter puts something beside each sequence"
    kinds: list[str] = list(getattr(model.config.get_text_config(), "layer_types", None) or [])
    if others := sorted(set(kinds) - ATTENTION_LAYERS):
        return f"it has layers of another kind: {', '.join(others)}"
    # Attention multiplies in the compute type under autocast, so nothing is lost by keeping keys in it.
    kept = policy.compute_dtype if policy.compute_dtype != torch.float32 else None
    recorder = _Recorder(kept)
    try:
        with generating(policy):
            inputs = ModelInputs.of(_step(policy, [(range(2), 0)]), policy.device)
            packed_forward(model, inputs, recorder)
        if not recorder.shapes:
            return "its attention cannot be replaced"
        if recorder.num_windows != kinds.count("sliding_attention") and kinds:
            return "its layers do not say which of them have a sliding window"
        runner = make(policy, recorder.shapes)
        difference = _difference(policy, runner)
    except Exception as error:  # noqa: BLE001 - whatever an architecture makes of packed inputs
        return f"a packed forward pass fails: {type(error).__name__}: {error}"
    allowed = TOLERANCE.get(policy.compute_dtype, 1e-3)
    weight_type = next(model.parameters()).dtype
    allowed = max(allowed, TOLERANCE.get(weight_type, 0.1))
    if not difference <= allowed:
        return f"a packed forward pass gives other logits (by {difference:.1e} of the largest)"
    return runner


def _difference(policy: Policy, runner: PackedRunner) -> float:
    """Largest difference of logits from the model's own, as a share of the largest logit."""
    runner.allocate(2)
    steps = (
        [(range(CHUNK), 0)],
        [(range(CHUNK, LONG), 0), (range(SHORT), 1)],
        [(range(LONG, LONG + 1), 0), (range(SHORT, SHORT + 1), 1)],
    )
    # A runner may write the logits of each step to the same place.
    _, *found = [runner.forward(_step(policy, step)).clone() for step in steps]
    ours = torch.cat(found)
    runner.free_cache()
    runner.weights_changed()  # a checkpoint may be loaded before the first step
    with generating(policy):
        theirs = torch.cat(
            [
                policy.model(input_ids=_tokens(policy, range(count))[None], use_cache=False).logits[0, -1:]
                for count in (LONG, SHORT, LONG + 1, SHORT + 1)
            ]
        )
    return ((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max()).item()


def _step(policy: Policy, sequences: list[tuple[range, int]]) -> Step:
    """The next tokens of sequences of one block each, given as positions and block."""
    places = [place for span, _ in sequences for place in span]
    ends = torch.tensor([0, *(len(span) for span, _ in sequences)]).cumsum(0)
    return Step(
        token_ids=_tokens(policy, places).cpu(),
        positions=torch.tensor(places),
        query_starts=ends.int(),
        block_tables=torch.tensor([[block] for _, block in sequences], dtype=torch.int32),
        logit_positions=ends[1:] - 1,
        adapters=[None] * len(sequences),
    )


def _tokens(policy: Policy, places: Any) -> Tensor:
    """Some tokens, all different where the vocabulary allows it."""
    size = policy.model.get_input_embeddings().num_embeddings
    return torch.tensor([(7 * place + 1) % size for place in places], device=policy.device)
