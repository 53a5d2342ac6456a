"""Loading a checkpoint: what it gives, and what is said of one that is damaged."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.errors import ConfigError, ModelError, PluginError
from llmkit.models.loading import (
    check_vocabulary,
    checkpoint_path,
    context_length,
    load_model,
    load_on_meta,
    load_tokenizer,
    load_weights,
)
from llmkit.models.packed import supports_packing
from llmkit.models.policy import Policy, load_policy, torch_device
from llmkit.testing.tiny import CONTEXT_LENGTH, tiny_model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory to damage."""
    shutil.copytree(tiny_model(), tmp_path / "model")
    return tmp_path / "model"


def load(path: Path | str, **settings: object) -> torch.nn.Module:
    return load_model(ModelConfig.model_validate({"path": str(path), **settings}))


def change_config(directory: Path, **values: object) -> None:
    path = directory / "config.json"
    config = {name: value for name, value in json.loads(path.read_text()).items() if name != "layer_types"}
    path.write_text(json.dumps({**config, **values}))


class TestModel:
    def test_the_weights_are_those_of_plain_transformers(self):
        model = load(tiny_model())
        plain = AutoModelForCausalLM.from_pretrained(tiny_model())
        assert not model.training
        assert supports_packing(model)
        for (name, mine), (_, theirs) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
            assert torch.equal(mine, theirs), name

    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("auto", torch.float32)],
    )
    def test_weights_are_kept_in_the_type_that_was_asked_for(self, dtype: str, expected: torch.dtype):
        assert next(load(tiny_model(), dtype=dtype).parameters()).dtype == expected

    def test_on_meta_it_has_shapes_and_no_memory(self):
        model = load_on_meta(ModelConfig(path=tiny_model()))
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
        shapes = [parameter.shape for parameter in load(tiny_model()).parameters()]
        assert [parameter.shape for parameter in model.parameters()] == shapes

    def test_the_context_is_what_the_configuration_says(self):
        assert context_length(ModelConfig(path=tiny_model())) == CONTEXT_LENGTH

    def test_weights_of_a_checkpoint_are_taken_bit_for_bit(self, directory: Path):
        weights = {name: tensor + 0.5 for name, tensor in load_file(directory / "model.safetensors").items()}
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        model = load(tiny_model())
        load_weights(model, directory)
        assert torch.equal(model.get_parameter("model.norm.weight"), weights["model.norm.weight"])

    def test_weights_of_another_model_are_refused(self, tmp_path: Path):
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=11, **sizes)).save_pretrained(tmp_path)
        with pytest.raises(ModelError, match=str(tmp_path)):
            load_weights(load(tiny_model()), tmp_path)

    def test_a_report_of_transformers_is_not_printed(self, directory: Path, capfd: pytest.CaptureFixture[str]):
        change_config(directory, num_hidden_layers=3)
        before = transformers_logging.get_verbosity()
        with pytest.raises(ModelError, match=r"lacks 11 weights .*model\.layers\.2\.input_layernorm\.weight"):
            load(directory)
        assert "REPORT" not in capfd.readouterr().err
        assert transformers_logging.get_verbosity() == before

    def test_weights_without_a_place_are_named_and_no_error(self, directory: Path, caplog: pytest.LogCaptureFixture):
        change_config(directory, num_hidden_layers=1, max_window_layers=1)
        with caplog.at_level(logging.WARNING):
            load(directory)
        (record,) = [record for record in caplog.records if record.name == "llmkit.models.loading"]
        assert record.getMessage().startswith(f"{directory}: the model has no place for 11 weights: model.layers.1.")

    def test_shapes_that_do_not_fit_are_named(self, directory: Path):
        change_config(directory, vocab_size=300)
        with pytest.raises(
            ModelError, match=r"1 weights have other shapes .*embed_tokens\.weight: \[259, 32\], not \[300, 32\]"
        ):
            load(directory)

    @pytest.mark.parametrize(
        ("index", "message"),
        [
            ("{", r"model\.safetensors\.index\.json: not valid JSON"),
            ("{}", "no 'weight_map'"),
            (
                '{"weight_map": {"a": "model-1.safetensors"}}',
                r"1 of the weight files .* missing \(model-1\.safetensors\)",
            ),
        ],
    )
    def test_an_index_must_name_shards_that_are_there(self, directory: Path, index: str, message: str):
        (directory / "model.safetensors").unlink()
        (directory / "model.safetensors.index.json").write_text(index)
        with pytest.raises(ModelError, match=message):
            load(directory)

    def test_a_bin_file_that_is_damaged(self, directory: Path):
        (directory / "model.safetensors").unlink()
        (directory / "pytorch_model.bin").write_bytes(b"garbage!" * 10)
        with pytest.raises(ModelError, match=r"the model cannot be loaded: a \.bin file is damaged"):
            load(directory)

    def test_a_model_that_writes_no_text(self, directory: Path):
        (directory / "config.json").write_text('{"model_type": "vit"}')
        with pytest.raises(ModelError, match=r"the model cannot be loaded: .*ViTConfig"):
            load(directory)


class TestPath:
    def test_an_unknown_builtin_names_those_that_are_there(self):
        with pytest.raises(PluginError, match=r"'tinny'.*tiny"):
            checkpoint_path(ModelConfig(path="builtin:tinny"))

    def test_a_hub_name_stays_as_it_is(self):
        assert checkpoint_path(ModelConfig(path="Qwen/Qwen2.5-0.5B-Instruct")) == "Qwen/Qwen2.5-0.5B-Instruct"

    def test_the_home_directory_may_be_written_as_a_tilde(self, directory: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("HOME", str(directory.parent))
        assert checkpoint_path(ModelConfig(path="~/model")) == str(directory)


class TestTokenizer:
    def test_is_the_models_own(self):
        tokenizer = load_tokenizer(ModelConfig(path=tiny_model()))
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        assert tokenizer.decode(tokenizer("ba, né").input_ids) == "ba, né"

    def test_may_be_that_of_another_directory(self, directory: Path, tmp_path: Path):
        (tmp_path / "other").mkdir()
        for path in [path for path in directory.iterdir() if "token" in path.name or "chat" in path.name]:
            path.rename(tmp_path / "other" / path.name)
        with pytest.raises(ModelError, match=r"--set model\.tokenizer=DIR"):
            load_tokenizer(ModelConfig(path=str(directory)))
        assert load_tokenizer(ModelConfig(path=str(directory), tokenizer=str(tmp_path / "other"))).eos_token

    def test_a_directory_that_is_not_there_is_named_by_its_setting(self):
        with pytest.raises(ModelError, match=r"^model\.tokenizer=\./nowhere: no such directory$"):
            load_tokenizer(ModelConfig(path=tiny_model(), tokenizer="./nowhere"))

    @pytest.mark.parametrize("text", ["{}", '{"model": 1}'])
    def test_a_file_that_is_no_tokenizer(self, directory: Path, text: str):
        (directory / "tokenizer.json").write_text(text)
        with pytest.raises(ModelError, match="the tokenizer cannot be loaded: "):
            load_tokenizer(ModelConfig(path=str(directory)))


class TestPolicy:
    def test_is_loaded_onto_its_device(self):
        policy = load_policy(ModelConfig(path=tiny_model()), DeviceConfig(device="cpu", compute_dtype="bfloat16"))
        assert policy.device == torch.device("cpu")
        assert policy.compute_dtype is torch.bfloat16
        assert policy.context_length == CONTEXT_LENGTH

    @pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
    def test_a_device_that_is_not_there_is_named_with_those_that_are(self):
        with pytest.raises(ConfigError, match=r"device\.device=cuda: .*available: .*cpu"):
            torch_device(DeviceConfig(device="cuda"))

    def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(self):
        config = ModelConfig(path=tiny_model())
        model, tokenizer = load_policy(config, DeviceConfig(device="cpu")).model, load_tokenizer(config)
        check_vocabulary(model, tokenizer, config)
        tokenizer.add_tokens(["<new>"])
        with pytest.raises(ModelError, match=r"has 260 tokens, the model embeddings for 259.*model\.tokenizer"):
            check_vocabulary(model, tokenizer, config)

    def test_recomputing_activations_gives_the_same_gradients(self):
        def gradients(recompute: bool) -> list[torch.Tensor]:
            policy = load_policy(ModelConfig(path=tiny_model()), DeviceConfig(device="cpu"))
            if recompute:
                policy.recompute_activations()
            policy.model.train()
            policy.model(torch.tensor([[5, 6, 7, 8]])).logits.square().sum().backward()
            return [parameter.grad for parameter in policy.model.parameters()]

        for kept, recomputed in zip(gradients(False), gradients(True), strict=True):
            torch.testing.assert_close(recomputed, kept)

    def test_a_model_that_cannot_recompute_activations_says_so(self):
        class Rigid(torch.nn.Module):
            def activation_checkpointing_enable(self, settings: dict) -> None:
                raise ValueError("Rigid does not support it.")

        with pytest.raises(ConfigError, match=r"device\.gradient_checkpointing=true: Rigid does not support it"):
            Policy(Rigid(), torch.device("cpu"), torch.float32).recompute_activations()
