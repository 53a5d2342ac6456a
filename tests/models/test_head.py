"""Which models come apart into a backbone and a head, and that the parts make their logits."""

from typing import Any

import peft
import pytest
import torch
import transformers

from llmkit.models import head as module
from llmkit.models.head import output_head
from llmkit.models.scoring import Scoring

from .architectures import ARCHITECTURES, SMALL, load_small

SCALED = {
    "cohere": transformers.CohereConfig(**SMALL, logit_scale=0.25),
    "granite": transformers.GraniteConfig(**SMALL, logits_scaling=8.0),
    "gemma2_capped": transformers.Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.05),
}


@pytest.fixture
def llama(tmp_path) -> Any:
    return load_small(ARCHITECTURES["llama"], tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("name", [*ARCHITECTURES, *SCALED])
def test_the_parts_make_the_logits(name: str, tmp_path):
    model = load_small((ARCHITECTURES | SCALED)[name], tmp_path)
    head = output_head(model)
    assert head is not None
    tokens = torch.tensor([[5, 9, 60, 61]])
    hidden: Any = head.backbone(input_ids=tokens, use_cache=False)
    scores = head.scoring.scores(head.linear(hidden.last_hidden_state))
    torch.testing.assert_close(scores, model(tokens, use_cache=False).logits, rtol=1e-5, atol=1e-6)


def test_scales_and_bounds_are_read_from_the_configuration(tmp_path):
    expected = {
        "cohere": Scoring(scale=0.25),
        "granite": Scoring(scale=1 / 8),
        "gemma2_capped": Scoring(softcap=0.05),
    }
    for name, config in SCALED.items():
        head = output_head(load_small(config, tmp_path / name))
        assert head is not None
        assert head.scoring == expected[name]


def test_a_model_that_does_more_than_its_configuration_says_is_left_whole(llama: Any, monkeypatch: pytest.MonkeyPatch):
    class Louder(type(llama)):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 1.01
            return output

    llama.__class__ = Louder
    assert output_head(llama) is None


def test_the_model_is_asked_once_and_left_as_it_was(llama: Any, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    modules = dict(llama.named_modules())
    assert output_head(llama) is not None
    assert dict(llama.named_modules()) == modules
    torch.testing.assert_close(torch.rand(3), expected)
    monkeypatch.setattr(module, "_comes_apart", lambda *_: pytest.fail("asked again"))
    assert output_head(llama) is not None


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_below_the_head_is_no_obstacle(llama: Any):
    wrapped = peft.get_peft_model(llama, peft.LoraConfig(target_modules=["q_proj"]))
    head = output_head(wrapped)
    assert head is not None
    assert head.linear is llama.lm_head


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapted_head_or_virtual_tokens_leave_the_model_whole(tmp_path):
    adapted = peft.get_peft_model(
        load_small(ARCHITECTURES["llama"], tmp_path / "a"), peft.LoraConfig(target_modules=["lm_head"])
    )
    prompted = peft.get_peft_model(
        load_small(ARCHITECTURES["llama"], tmp_path / "b"),
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    )
    assert output_head(adapted) is None
    assert output_head(prompted) is None
