"""The embedded model before training: small, seeded, and made the same way every time."""

import hashlib
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from llmkit.cache import cached_directory, fingerprint
from llmkit.config.schema import ModelConfig, SFTDataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Encoded
from llmkit.data.encoders import SampleEncoder
from llmkit.embedded import untrained
from llmkit.models.loading import load_model
from llmkit.types import Message, Record, Source


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("untrained")
    untrained.write(path)
    return path


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_it_is_the_same_every_time(directory: Path, tmp_path: Path):
    untrained.write(tmp_path)
    assert digests(tmp_path) == digests(directory)


def test_it_is_a_qwen3_of_one_to_five_million_parameters(directory: Path):
    model = load_model(ModelConfig.model_validate({"path": str(directory)}))
    assert AutoConfig.from_pretrained(directory).model_type == "qwen3"
    assert 1_000_000 < sum(parameter.numel() for parameter in model.parameters()) < 5_000_000


def test_any_text_survives_the_tokenizer(directory: Path):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for text in ("12*3=36\n#### 36", "Ünïcode, 漢字 and 🙂\ttabs", " two  spaces "):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer("4096").input_ids) == 4


def test_the_template_trains_the_answer_and_its_end(directory: Path):
    codec = TextCodec(AutoTokenizer.from_pretrained(directory))
    record = Record((Message("user", "1+1?"), Message("assistant", "#### 2")), Source("t", 1))
    (encoded,) = SampleEncoder(codec, SFTDataConfig())([record])
    assert isinstance(encoded, Encoded)
    (sample,) = encoded.items
    pieces = codec.pieces(sample.token_ids)
    trained = "".join(piece for piece, weight in zip(pieces, sample.loss_weights, strict=True) if weight)
    assert trained == "#### 2<|im_end|>"
    assert codec.decode(codec.stop_token_ids) == "<|im_end|>"


def test_a_cached_directory_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path))
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        (path / "file").write_text("content")

    first, second = cached_directory("thing", make), cached_directory("thing", make)
    assert first == second == tmp_path / "models" / "thing"
    assert (first / "file").read_text() == "content"
    assert len(made) == 1


def test_a_failed_making_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path))

    def fail(path: Path) -> None:
        (path / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_directory("thing", fail)
    assert not (tmp_path / "models" / "thing").exists()
    made = cached_directory("thing", lambda path: (path / "whole").touch())
    assert [path.name for path in made.iterdir()] == ["whole"]


def test_the_fingerprint_follows_the_contents(tmp_path: Path):
    file = tmp_path / "a"
    file.write_text("1")
    before = fingerprint([file])
    file.write_text("2")
    assert fingerprint([file]) != before
