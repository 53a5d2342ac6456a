"""Models as files of llama.cpp: read back, and by transformers where it knows the family, they are what they were."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from llmkit import cli
from llmkit.convert.gguf_files import command as gguf_files
from llmkit.convert.gguf_files.kquants import QUANTIZERS
from llmkit.convert.gguf_files.recipes import Recipe
from llmkit.convert.gguf_files.vocabulary import CUTS, Kind, read_vocabulary
from llmkit.convert.tensor_files import TensorShape
from llmkit.testing.tiny import tiny_model

TEXTS = ["the quick brown fox don't you'll 12345 日本語 " * 3, "def f(x):\n    return x + 1\n\n" * 5]
SIZES = {
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# Head sizes are those that transformers assumes, as its own reader of the format does not look for them.
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": {"tie_word_embeddings": True},
    "Qwen3": {"head_dim": 128},
    "Gemma2": {"head_dim": 256, "query_pre_attn_scalar": 256},
    "Gemma3Text": {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096},
}


def byte_tokenizer(expression: str | None = None) -> PreTrainedTokenizerFast:
    """Merges of bytes, which text is cut for as Qwen 2 does it unless told otherwise."""
    cut = expression or next(one for one, name in CUTS.items() if name == "qwen2")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(cut), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = "{{ messages }}"
    return fast


def make(directory: Path, family: str = "Llama", **options: Any) -> Path:
    """A model with random weights, norms too."""
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **FAMILIES.get(family, {}), **options})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{family.removesuffix('Text')}ForCausalLM")(config)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape)
    model.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


def convert(*arguments: object) -> int:
    return cli.run(["convert", "checkpoint", *map(str, arguments), "--to", "gguf"])


def fields(path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_read_by_transformers_is_the_model(family: str, tmp_path: Path):
    model = make(tmp_path / "model", family)
    assert convert(model, "--output", tmp_path / "x.gguf", "--verify") == 0
    before = AutoModelForCausalLM.from_pretrained(model).eval()
    after: Any = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="x.gguf").eval()
    assert type(after) is type(before)
    read = after.state_dict()
    for name, tensor in before.state_dict().items():
        # One is added to Gemma's norms and taken away again, which rounds.
        assert torch.allclose(read[name], tensor, rtol=0, atol=2e-7 if "norm" in name else 0), name
    tokens = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(after(tokens).logits, before(tokens).logits, rtol=0, atol=1e-5)


def test_the_tokenizer_comes_along(tmp_path: Path):
    model = make(tmp_path / "model")
    assert convert(model, "--output", tmp_path / "x.gguf") == 0
    text = "the quick don't 日本 def f(x):\n  return <|end|>x 123"
    before = AutoTokenizer.from_pretrained(model)
    after = AutoTokenizer.from_pretrained(tmp_path, gguf_file="x.gguf")
    assert after(text).input_ids == before(text).input_ids
    told = fields(tmp_path / "x.gguf")
    assert told["tokenizer.ggml.pre"] == "qwen2"
    assert told["tokenizer.chat_template"] == "{{ messages }}"
    assert told["tokenizer.ggml.eos_token_id"] == before.eos_token_id
    assert told["tokenizer.ggml.add_bos_token"] is False
    assert told["tokenizer.ggml.token_type"][before.eos_token_id] == Kind.CONTROL
    assert told["tokenizer.ggml.tokens"][-1] == "[PAD319]", "rows without a token have one that is never used"


def test_pieces_of_sentencepiece_keep_their_order(tmp_path: Path):
    merges = [("a", "b"), ("▁", "ab"), ("ab", "ab"), ("a", "bab")]
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "a",
        "b",
        "ab",
        "▁ab",
        "abab",
        "bab",
    ]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    read = read_vocabulary(fast, len(pieces))
    assert (read.model, read.space_before) == ("llama", True)
    score = dict(zip(read.pieces, read.scores, strict=True))
    assert score["ab"] > score["▁ab"] > score["abab"] > score["a"] == score["bab"]
    assert [read.kinds[number] for number in (0, 1, 3, 259)] == [Kind.UNKNOWN, Kind.CONTROL, Kind.BYTE, Kind.NORMAL]


@pytest.mark.parametrize(
    ("quantize", "error"), [("q8_0", 0.006), ("q6_k", 0.03), ("q5_k_m", 0.05), ("q4_k_m", 0.1), ("q4_0", 0.12)]
)
def test_fewer_bits_keep_their_bounds(quantize: str, error: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = make(tmp_path / "model", "Qwen3")
    assert convert(model, "--quantize", quantize, "--output", tmp_path / "x.gguf", "--verify", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert 0 < document["checks"]["relative_error"] < error
    assert document["checks"]["values"] == "within the error of their types"
    assert (tmp_path / "x.gguf").stat().st_size < 0.4 * (model / "model.safetensors").stat().st_size
    assert json.loads((tmp_path / "x.gguf.conversion.json").read_text())["options"]["mixture"] == quantize


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_k_quant_is_better_than_its_range_cut_evenly(kind: str):
    numbers = np.random.default_rng(0).standard_t(4, (64, 256)).astype(np.float32)
    numbers[0] = 0
    numbers[1] = 3
    numbers[2, ::2] = -1e-3
    found = gguf.quants.dequantize(QUANTIZERS[kind](numbers), gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1], 3, rtol=0.02)
    bits = int(kind[1])
    parts = numbers.reshape(64, -1, 16 if bits == 6 else 32)
    # The levels of Q6_K are as many on both sides of 0.
    width = 2 * np.abs(parts).max(-1) if bits == 6 else parts.max(-1) - parts.min(-1)
    step = width / (2**bits - 1)
    # Even steps are off by a twelfth of their square on average.
    assert np.square(found - numbers).mean() < 1.1 * (step**2 / 12).mean()


def test_a_mixture_gives_more_bits_to_what_matters():
    recipe = Recipe("q4_k_m", num_layers=16, is_tied=False)
    wide, narrow, odd = (TensorShape(torch.float32, (8, size)) for size in (512, 96, 40))
    assert recipe.type_of("output.weight", wide) == "Q6_K"
    assert [recipe.type_of(f"blk.{layer}.ffn_down.weight", wide) for layer in (0, 2, 4, 15)] == [
        "Q6_K", "Q4_K", "Q6_K", "Q6_K",
    ]  # fmt: skip
    assert recipe.type_of("blk.0.attn_q.weight", wide) == "Q4_K"
    assert recipe.type_of("blk.0.attn_q.weight", narrow) == "Q5_0"
    assert recipe.type_of("blk.0.attn_q.weight", odd) == "F16"
    assert recipe.type_of("blk.0.attn_norm.weight", TensorShape(torch.float32, (512,))) == "F32"
    assert Recipe("q4_k_m", 16, is_tied=True).type_of("token_embd.weight", wide) == "Q6_K"


def test_rotary_positions_of_llama_3_have_their_factors(tmp_path: Path):
    model = make(tmp_path / "model", rope_parameters=LLAMA3)
    assert convert(model, "--output", tmp_path / "x.gguf", "--verify") == 0
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    factors = tensors["rope_freqs.weight"]
    assert factors[0] == pytest.approx(1)
    assert factors[-1] == pytest.approx(8)
    assert fields(tmp_path / "x.gguf")["llama.rope.freq_base"] == 5e5


def test_a_large_tensor_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = make(tmp_path / "model")
    assert convert(model, "--output", tmp_path / "whole.gguf", "--quantize", "q4_k_s") == 0
    monkeypatch.setattr("llmkit.convert.tensor_source.PART_BYTES", 7 * 256 * 4)
    assert convert(model, "--output", tmp_path / "parts.gguf", "--quantize", "q4_k_s", "--verify") == 0
    assert (tmp_path / "parts.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_a_damaged_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    model = make(tmp_path / "model")
    whole = gguf_files.write

    def damaged(export: Any, out: Path) -> None:
        whole(export, out)
        with out.open("r+b") as file:
            file.seek(-2000, 2)
            file.write(b"\x7f" * 64)

    monkeypatch.setattr(gguf_files, "write", damaged)
    assert convert(model, "--quantize", "q8_0", "--output", tmp_path / "x.gguf", "--verify") == 1
    assert "differ by more than" in capsys.readouterr().err
    assert not (tmp_path / "x.gguf").exists()


def test_what_has_no_place_in_the_format_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def refused(model: Path, *options: object) -> str:
        assert convert(model, "--output", tmp_path / "x.gguf", *options) == 2
        return capsys.readouterr().err

    config = transformers.GPTNeoXConfig(**SIZES)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "neox")
    byte_tokenizer().save_pretrained(tmp_path / "neox")
    assert "GPTNeoXForCausalLM cannot be written so; what can: Llama" in refused(tmp_path / "neox")
    model = make(tmp_path / "model")
    assert "takes one of q8_0" in refused(model, "--quantize", "int8_weight_only")
    assert "--dtype has no effect" in refused(model, "--quantize", "q8_0", "--dtype", "float16")
    byte_tokenizer(r"\w+|\W").save_pretrained(model)
    assert "does not know llama.cpp's name for how this tokenizer cuts text (Split, ByteLevel" in refused(model)
    config_file = model / "config.json"
    config_file.write_text(config_file.read_text().replace('"intermediate_size": 256', '"intermediate_size": 240'))
    assert "and config.json's model has [256, 240]" in refused(model)
    assert "needs a model directory" in refused(model / "model.safetensors")
    dynamic = make(tmp_path / "dynamic", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    assert "rotary positions of type 'dynamic'" in refused(dynamic)


def test_a_model_without_merges_is_cut_in_any_way(tmp_path: Path):
    assert convert(tiny_model(), "--output", tmp_path / "x.gguf", "--verify") == 0
    told = fields(tmp_path / "x.gguf")
    assert (told["tokenizer.ggml.pre"], len(told["tokenizer.ggml.merges"])) == ("gpt-2", 1)
