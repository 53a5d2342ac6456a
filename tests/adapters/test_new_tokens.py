"""Tokens that a run adds: adapters train their rows, keep them in checkpoints, or refuse before anything loads."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from llmkit import plugins
from llmkit.adapters.contract import Adapter, AdapterContext
from llmkit.adapters.new_tokens import vocabulary_modules
from llmkit.adapters.wrapping import quiet
from llmkit.config.schema import ModelConfig
from llmkit.engines.training.parameter_groups import parameter_groups
from llmkit.errors import ConfigError
from llmkit.models.loading import load_model
from llmkit.models.vocabulary import Growth, grow_embeddings
from llmkit.testing.adapter import AdapterContract
from llmkit.testing.settings import optim
from llmkit.testing.tiny import tiny_model

NEW = (256, 257)
OPTIONS: dict[str, dict[str, Any]] = {
    "corda": {"r": 8},
    "eva": {"r": 4, "rho": 1.0, "tau": 0.9, "num_batches": 2},
    "full": {},
    "lora_ga": {"r": 8, "num_batches": 2},
    "velora": {"r": 8, "num_groups": 16},
}
ELSEWHERE = {"hyenadna", "loftq"}


class WithNewTokens(AdapterContract):
    """A model that has grown by two tokens, and rows that are full of them."""

    directory: ClassVar[Path]

    def base_model(self) -> Any:
        model = load_model(ModelConfig(path=str(self.directory)))
        grow_embeddings(model, Growth(256, NEW), None)
        return model

    def context(self) -> AdapterContext:
        return replace(super().context(), new_tokens=NEW)

    def batches(self, count: int) -> Sequence[Any]:
        batches = super().batches(count)
        for batch in batches:
            batch.token_ids[::3], batch.token_ids[1::3] = NEW
        return batches


def contract_of(adapter: str, model: Path, **chosen: Any) -> WithNewTokens:
    class Contract(WithNewTokens):
        name = adapter
        options: ClassVar[dict[str, Any]] = chosen or OPTIONS.get(adapter, {"r": 8})
        directory = model

    for module, package in getattr(Contract().plugin(), "packages", {}).items():
        pytest.importorskip(module, reason=f"the adapter needs {package}")
    return Contract()


def trains_rows(name: str) -> bool:
    plugin = plugins.load("adapters", name)
    return name == "full" or getattr(getattr(plugin, "facts", None), "trains_new_tokens", False)


ABLE = sorted(name for name in plugins.names("adapters") if trains_rows(name) and name not in ELSEWHERE)


def rows(model: Any) -> list[torch.Tensor]:
    """What the model has for the new tokens: embeddings, and weights of the head."""
    base = getattr(model, "get_base_model", lambda: model)()
    ids = torch.tensor(NEW)
    embedded = base.get_input_embeddings()(ids)
    width = embedded.shape[-1]
    return [embedded.detach(), base.get_output_embeddings()(torch.eye(width))[:, ids].T.detach()]


@pytest.mark.parametrize("name", ABLE)
def test_rows_train_and_are_in_the_checkpoint(name: str, tiny_llama: Path, tmp_path: Path):
    contract = contract_of(name, tiny_llama)
    before = rows(contract.base_model())
    adapter, model = contract.trained()
    after = rows(model)
    for one, other in zip(before, after, strict=True):
        assert (one != other).any(dim=1).all(), "a row of every new token moves, in the untied head too"
    adapter.save(model, tmp_path)
    restored: Any = contract.build().restore(contract.base_model(), tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(rows(restored), after, strict=True))
    assert torch.equal(contract.logits(restored.eval()), contract.logits(model))
    contract.test_its_size_is_known_from_shapes_alone()
    contract.test_a_base_that_is_kept_is_there_when_the_adapter_is_off()
    contract.test_merging_keeps_what_was_learnt_or_is_refused()


def test_a_tied_head_trains_with_its_embedding(tmp_path: Path):
    contract = contract_of("lora", Path(tiny_model()), r=4, trainable_token_indices=(5,))
    adapter, model = contract.trained()
    embedded, head = rows(model)
    assert torch.equal(embedded, head)
    (name,) = [name for name, _ in model.named_parameters() if "trainable_tokens_delta" in name]
    assert dict(model.named_parameters())[name].shape[0] == 3, "the token that was asked for trains as well"
    adapter.save(model, tmp_path)
    assert torch.equal(rows(contract.build().restore(contract.base_model(), tmp_path))[0], embedded)


def test_plain_peft_reads_the_checkpoint_beside_a_grown_model(tiny_llama: Path, tmp_path: Path):
    import peft

    contract = contract_of("lora", tiny_llama)
    adapter, model = contract.trained()
    adapter.save(model, tmp_path)
    base = load_model(ModelConfig(path=str(tiny_llama)))
    base.resize_token_embeddings(258, mean_resizing=False)  # type: ignore[operator] - its rows are at random
    with quiet():
        loaded = peft.PeftModel.from_pretrained(base, tmp_path).eval()  # type: ignore[arg-type]
    assert torch.equal(contract.logits(loaded), contract.logits(model))


def test_modules_that_train_as_a_whole_hold_new_rows_with_any_adapter(tiny_llama: Path, tmp_path: Path):
    contract = contract_of("loha", tiny_llama, r=4, modules_to_save=("embed_tokens", "lm_head"))
    adapter, model = contract.trained()
    assert adapter.facts.trains_new_tokens
    adapter.save(model, tmp_path)
    restored = contract.build().restore(contract.base_model(), tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(rows(restored), rows(model), strict=True))


def test_optimizers_see_rows_for_what_they_are(tiny_llama: Path):
    _, model = contract_of("lora", tiny_llama).attached()
    roles = {group.role: group for group in parameter_groups(model, optim(weight_decay=0.1))}
    assert [tuple(one.shape) for one in roles["embedding"].parameters] == [(2, 64)]
    assert [tuple(one.shape) for one in roles["output"].parameters] == [(2, 64)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lora", {"modules_to_save": ["embed_tokens"]}, r"adds rows to model\.embed_tokens and lm_head|lm_head too"),
        ("lora", {"target_modules": ["embed_tokens", "q_proj"]}, r"'model\.embed_tokens' has rows of new tokens"),
        ("loha", {"modules_to_save": ["embed_tokens"]}, r"model\.add_tokens adds rows to lm_head too"),
        ("full", {"freeze": ["*embed_tokens*"]}, r"leaves 'model\.embed_tokens\.weight' as it is"),
    ],
)
def test_rows_that_would_not_train_are_refused(name: str, options: dict[str, Any], message: str):
    adapter, model = begun(name, Path(tiny_model()), options)
    with pytest.raises(ConfigError, match=message):
        adapter.check(model)


def test_padding_needs_the_whole_model():
    plugin = plugins.load("adapters", "lora")
    with pytest.raises(ConfigError, match=r"rows of model\.pad_vocab_to_multiple_of belong to the base model"):
        plugin.build(plugin.Config()).begin(AdapterContext(pads_vocabulary=True))


def test_an_untied_head_has_rows_of_its_own(tiny_llama: Path):
    untied, tied = (load_model(ModelConfig(path=str(path))) for path in (tiny_llama, tiny_model()))
    assert list(vocabulary_modules(untied)) == ["model.embed_tokens", "lm_head"]
    assert list(vocabulary_modules(tied)) == ["model.embed_tokens"]


def begun(name: str, path: Path, options: dict[str, Any]) -> tuple[Adapter, Any]:
    plugin = plugins.load("adapters", name)
    adapter = plugin.build(plugin.Config.model_validate(options))
    adapter.begin(AdapterContext(new_tokens=NEW))
    return adapter, load_model(ModelConfig(path=str(path)))
