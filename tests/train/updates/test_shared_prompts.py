"""A whole update of a small transformer with prompts computed once, against prompts repeated for each answer."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, Qwen3Config

from llmkit.models.loading import load_model
from llmkit.models.policy import Policy
from llmkit.train import dpo, grpo_update, idle_settings
from llmkit.types import PreferencePair, Sample, Source

from .unigram import Steps, resolved, rollout

SHAPE: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
SOURCE = Source("rows.jsonl", 1)


class Gradients(Steps):
    """Keeps the gradients of all parameters; takes no step."""

    def step(self) -> dict[str, float]:
        found = {name: p.grad.clone() for name, p in self.policy.model.named_parameters() if p.grad is not None}
        self.policy.model.zero_grad()
        self.gradients.append(torch.cat([gradient.flatten() for gradient in found.values()]))
        return {"grad_norm": 0.0, "learning_rate": 0.0}


@pytest.fixture(scope="module", params=[LlamaConfig, Qwen3Config])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    from transformers import AutoModelForCausalLM

    from llmkit.config.schema import ModelConfig

    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    for name in (directory / "policy", directory / "reference"):
        AutoModelForCausalLM.from_config(request.param(**SHAPE)).save_pretrained(name)
    model, reference = (load_model(ModelConfig(path=str(directory / name))) for name in ("policy", "reference"))
    return Policy(model, torch.device("cpu"), torch.float32, reference)


def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> PreferencePair:
    sides = [Sample(prompt + side, [0.0] * len(prompt) + [1.0] * len(side), SOURCE) for side in (chosen, rejected)]
    return PreferencePair(*sides)


PAIRS = [pair([1, 2, 3, 4, 5], [6, 7], [8]), pair([9], [10, 11, 12], [10, 13]), pair([5, 5], [1], [2, 3, 4, 5])]
ROLLOUTS = [
    rollout([2, 3, 9], 1.0, 0), rollout([4], 0.0, 0), rollout([4, 5], 0.25, 0),
    rollout([3, 3, 2], 0.5, 1), rollout([4, 2, 0, 1], -1.0, 1),
]  # fmt: skip


def grpo_step(policy: Policy, *overrides: str) -> tuple[torch.Tensor, dict[str, float]]:
    engine = Gradients(policy)
    return engine, grpo_update.update(engine, ROLLOUTS, resolved("train/grpo", *overrides))  # type: ignore[return-value]


def dpo_step(policy: Policy, *overrides: str) -> tuple[Any, dict[str, float]]:
    engine = Gradients(policy)
    return engine, dpo.update(engine, PAIRS, resolved("train/dpo", *overrides))


@pytest.mark.parametrize("step", [grpo_step, dpo_step])
@pytest.mark.parametrize("overrides", [[], ["batch.tokens_per_micro_batch=9"]])
def test_metrics_and_gradients_are_the_same(step: Any, overrides: list[str], policy: Policy):
    shared, metrics = step(policy, *overrides)
    repeated, expected = step(policy, "batch.share_prompts=false")
    assert metrics == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(shared.gradients[0], repeated.gradients[0], rtol=1e-4, atol=1e-6)
    assert shared.gradients[0].abs().max() > 1e-4


@pytest.mark.parametrize(("step", "tokens"), [(grpo_step, [2 + 6, 2 + 7]), (dpo_step, [5 + 3, 1 + 5, 2 + 5])])
def test_prompts_are_computed_once(step: Any, tokens: list[int], policy: Policy, monkeypatch: pytest.MonkeyPatch):
    seen = []
    whole = Policy.logprobs

    def count(self: Policy, batch: Any, **options: Any) -> Any:
        seen.append(len(batch.token_ids))
        return whole(self, batch, **options)

    monkeypatch.setattr(Policy, "logprobs", count)
    step(policy)
    assert sum(seen) == sum(tokens)


def test_a_model_that_cannot_is_told_of_once(policy: Policy, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr(idle_settings, "note", said.append)
    batch = resolved("train/grpo").batch
    idle_settings.warn_of_repeated_prompts(policy, batch)
    assert not said
    monkeypatch.setattr(Policy, "can_share_prompts", False)
    idle_settings.warn_of_repeated_prompts(policy, resolved("train/grpo", "batch.share_prompts=false").batch)
    assert not said
    idle_settings.warn_of_repeated_prompts(policy, batch)
    assert len(said) == 1
    assert "batch.share_prompts has no effect" in said[0]
