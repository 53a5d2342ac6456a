"""Added tokens: ids, rows, means; on models with a tied and an untied head, and on those with rows to spare."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from llmkit.config.schema import ModelConfig
from llmkit.models.loading import load_model, load_on_meta, load_tokenizer, new_tokens
from llmkit.testing.tiny import tiny_model

NUM_TOKENS = 259


def config(path: str | Path | None = None, **settings: Any) -> ModelConfig:
    return ModelConfig.model_validate({"path": str(path or tiny_model()), **settings})


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an output head of its own, with a bias, and five rows that no token has."""
    from transformers import AutoTokenizer, PhiConfig, PhiForCausalLM

    directory = tmp_path_factory.mktemp("untied")
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = PhiForCausalLM(PhiConfig(vocab_size=NUM_TOKENS + 5, **shape))
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_model()).save_pretrained(directory)
    return directory


def test_a_token_is_found_in_text_and_a_special_one_is_left_out_of_answers():
    tokenizer = load_tokenizer(config(add_tokens=["<tool>"], add_special_tokens=["<|turn|>"]))
    ids = tokenizer.encode("a<tool>b<|turn|>", add_special_tokens=False)
    assert ids[1::2] == [NUM_TOKENS, NUM_TOKENS + 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<tool>b"


def test_new_rows_are_the_mean_of_the_old_ones():
    settings = config(add_tokens=["<a>", "<b>"])
    before, after = (load_model(one).get_input_embeddings().weight for one in (config(), settings))  # type: ignore
    assert new_tokens(settings) == (NUM_TOKENS, NUM_TOKENS + 1)
    assert torch.equal(after[:NUM_TOKENS], before)
    torch.testing.assert_close(after[NUM_TOKENS:], before.mean(dim=0).expand(2, -1))
    assert load_model(settings).get_output_embeddings().weight.shape == after.shape  # type: ignore[operator, union-attr]


def test_rows_to_spare_are_used_and_an_untied_head_has_means_of_its_own(untied: Path):
    before, after = load_model(config(untied)), load_model(config(untied, add_tokens=["<a>"]))
    for name in ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
        old, new = (model.state_dict()[name] for model in (before, after))
        assert old.shape == new.shape, "five rows were to spare"
        torch.testing.assert_close(new[NUM_TOKENS], old[:NUM_TOKENS].mean(dim=0))
        keep = torch.arange(len(old)) != NUM_TOKENS
        assert torch.equal(new[keep], old[keep])


def test_rows_are_padded_and_the_random_state_is_as_it_was():
    torch.manual_seed(0)
    expected = torch.get_rng_state()
    model = load_model(config(add_tokens=["<a>"], pad_vocab_to_multiple_of=64))
    assert torch.equal(torch.get_rng_state(), expected)
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == 320  # type: ignore


def test_shapes_alone_grow_too():
    model = load_on_meta(config(add_tokens=["<a>"]))
    assert model.get_input_embeddings().weight.shape == (NUM_TOKENS + 1, 32)  # type: ignore[operator, union-attr]


def test_known_tokens_are_told_of(caplog: pytest.LogCaptureFixture):
    load_tokenizer(config(add_tokens=["<|im_end|>", "<a>"]))
    assert "model.add_tokens has no effect on <|im_end|>: the tokenizer has them already" in caplog.text
    assert new_tokens(config(add_tokens=["<|im_end|>", "<a>"])) == (NUM_TOKENS,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"add_tokens": ["<a>", " "]}, "has no visible character"),
        ({"add_tokens": ["<a>"], "add_special_tokens": ["<a>"]}, "name '<a>' more than once"),
    ],
)
def test_what_is_no_token_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        config(**settings)
