import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from llmkit import plugins
from llmkit.engines.inference.weight_sync.policy_weights import PolicyWeights
from llmkit.errors import EngineError

from .servers import policy_of, tiny_model

MERGED = ("lora", "dora", "pissa", "olora", "ia3", "loha", "lokr", "vera", "hra", "boft", "ln_tuning", "fourierft")


def adapted(name: str, **options):
    plugin = plugins.load("adapters", name)
    model = plugin.build(plugin.Config(**options)).attach(tiny_model())
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_gives_its_checkpoint(tied, tmp_path):
    model = tiny_model(tied=tied)
    found = dict(PolicyWeights(policy_of(model)).tensors(None))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert found.keys() == {name for name, _ in again.named_parameters()}
    assert ("lm_head.weight" in found) is not tied
    assert all(torch.equal(found[name], parameter) for name, parameter in again.named_parameters())


@pytest.mark.parametrize("name", MERGED)
def test_an_adapter_is_part_of_the_weights_and_stays_beside_them_in_the_policy(name):
    model = adapted(name)
    policy = policy_of(model)
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        expected = model(tokens).logits
    found = dict(PolicyWeights(policy).tensors(None))
    plain = tiny_model()
    plain.load_state_dict(found, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(plain(tokens).logits, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(model(tokens).logits, expected)


def test_modules_that_train_whole_are_sent_as_they_train():
    model = adapted("lora", modules_to_save=["lm_head"])
    found = dict(PolicyWeights(policy_of(model)).tensors(None))
    plain = tiny_model()
    plain.load_state_dict(found, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(plain(torch.arange(9)[None]).logits, model(torch.arange(9)[None]).logits)


def test_weights_travel_in_the_type_that_is_asked_for():
    source = PolicyWeights(policy_of(tiny_model()))
    found = dict(source.tensors(torch.bfloat16))
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert sum(tensor.nbytes for tensor in found.values()) == source.num_bytes(torch.bfloat16)


def test_buffers_of_a_checkpoint_keep_their_type():
    model = tiny_model()
    model.model.register_buffer("counts", torch.arange(4.0))
    model.model.register_buffer("forgotten", torch.arange(4.0), persistent=False)
    found = dict(PolicyWeights(policy_of(model)).tensors(torch.bfloat16))
    assert found["model.counts"].dtype == torch.float32
    assert "model.forgotten" not in found


def test_a_prompt_is_no_weight_of_a_server():
    with pytest.raises(EngineError, match="no update of weights"):
        PolicyWeights(policy_of(adapted("prompt_tuning")))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapter_on_one_of_two_tied_ends_is_refused():
    plugin = plugins.load("adapters", "lora")
    model = plugin.build(plugin.Config(target_modules=["embed_tokens"])).attach(tiny_model(tied=True))
    with pytest.raises(EngineError, match="changes one of them alone"):
        dict(PolicyWeights(policy_of(model)).tensors(None))


def test_rounded_weights_are_refused():
    model = tiny_model()
    model.lm_head.weight = nn.Parameter(torch.zeros(64, 32, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(EngineError, match="is kept as uint8"):
        PolicyWeights(policy_of(model))


def test_fused_experts_are_sent_as_checkpoints_have_them(tmp_path):
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16,
        intermediate_size=48, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    found = dict(PolicyWeights(policy_of(model)).tensors(None))
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in found
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in saved.items())
