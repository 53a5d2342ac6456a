import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmkit.config.schema import DataConfig, PromptDataConfig, SFTDataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Dataset
from llmkit.data.files.reading import open_path
from llmkit.data.formatters import auto
from llmkit.data.loader import load_pairs, load_prompts, load_samples
from llmkit.errors import DataError

Codecs = Callable[[str], TextCodec]


def dataset_of(tmp_path: Path, rows: list[dict]) -> Dataset:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_path(str(path), None, None)


@pytest.fixture
def questions(tmp_path: Path) -> Dataset:
    """Ten short rows, of which the fourth is long."""
    return dataset_of(
        tmp_path, [{"question": f"q{n}", "answer": "long " * 60 if n == 3 else f"a{n}"} for n in range(10)]
    )


def test_samples_come_in_the_samplers_order(codec_of: Codecs, questions: Dataset):
    loader = load_samples(
        questions, auto.build(auto.Config()), codec_of("chatml"), SFTDataConfig(shuffle=False), seed=0
    )
    assert [sample.source.line for sample in loader.take(12)] == [*range(1, 11), 1, 2]
    assert (loader.counts.rows, loader.sampler.epoch, len(loader)) == (12, 1, 10)
    assert loader.counts.trained_tokens > 0


def test_dropped_rows_are_replaced_and_counted(codec_of: Codecs, questions: Dataset):
    config = SFTDataConfig(shuffle=False, max_length=60, overlength="drop")
    loader = load_samples(questions, auto.build(auto.Config()), codec_of("chatml"), config, seed=0)
    assert [sample.source.line for sample in loader.take(5)] == [1, 2, 3, 5, 6]
    assert (loader.counts.rows, loader.counts.dropped) == (6, 1)
    assert len(loader.read_all()) == 9
    assert len(loader.read_all(limit=4)) == 3


def test_dropping_everything_is_an_error(codec_of: Codecs, tmp_path: Path):
    dataset = dataset_of(tmp_path, [{"question": "q", "answer": "long " * 60}] * 3)
    config = SFTDataConfig(max_length=20, overlength="drop")
    loader = load_samples(dataset, auto.build(auto.Config()), codec_of("chatml"), config, seed=0)
    with pytest.raises(DataError, match=r"train\.jsonl: every row is longer than data\.max_length and was dropped"):
        loader.take(1)


def test_a_saved_position_goes_on_with_the_same_samples(codec_of: Codecs, questions: Dataset):
    config = SFTDataConfig(max_length=60, overlength="drop")
    loaders = [load_samples(questions, auto.build(auto.Config()), codec_of("chatml"), config, seed=5) for _ in range(2)]
    loaders[0].take(13)
    # A checkpoint keeps the state as JSON.
    loaders[1].load_state_dict(json.loads(json.dumps(loaders[0].state_dict())))
    assert loaders[1].take(9) == loaders[0].take(9)
    assert loaders[1].counts == loaders[0].counts


def test_pairs(codec_of: Codecs, tmp_path: Path):
    dataset = dataset_of(tmp_path, [{"prompt": "q", "chosen": "yes", "rejected": "no no"}])
    loader = load_pairs(dataset, auto.build(auto.Config()), codec_of("chatml"), DataConfig(), seed=0)
    (pair,) = loader.take(1)
    assert codec_of("chatml").decode(pair.chosen.token_ids).endswith("yes<|im_end|>\n")
    assert codec_of("chatml").decode(pair.rejected.token_ids).endswith("no no<|im_end|>\n")


def test_prompts_leave_room_for_their_completion(codec_of: Codecs, tmp_path: Path):
    rows = [{"question": question, "answer": "#### 1"} for question in ("q", "long " * 60, "r")]
    dataset, codec = dataset_of(tmp_path, rows), codec_of("chatml")
    config = PromptDataConfig(shuffle=False, max_length=100, overlength="drop")
    loader = load_prompts(dataset, auto.build(auto.Config()), codec, config, seed=0, max_new_tokens=50)
    first, second = loader.take(2)
    assert (first.answer, second.source.line) == ("1", 3)
    length = len(codec.prompt_ids(first.messages[:1]))
    assert (loader.counts.rows, loader.counts.dropped, loader.counts.tokens) == (3, 1, 2 * length)
    strict = PromptDataConfig(shuffle=False, max_length=length + 50)
    loader = load_prompts(dataset, auto.build(auto.Config()), codec, strict, seed=0, max_new_tokens=50)
    assert loader.take(1) == [first]
    with pytest.raises(
        DataError, match=r"train\.jsonl:2: a prompt of \d+ tokens and sampling\.max_new_tokens=50 are more"
    ):
        loader.take(1)


def test_a_bad_row_is_named_when_it_is_reached(codec_of: Codecs, tmp_path: Path):
    dataset = dataset_of(tmp_path, [{"question": "q", "answer": "a"}] * 3 + [{"question": "q"}])
    loader = load_samples(dataset, auto.build(auto.Config()), codec_of("chatml"), SFTDataConfig(shuffle=False), seed=0)
    loader.take(3)
    with pytest.raises(DataError, match=r"train\.jsonl:4: no 'answer'; found question\."):
        loader.take(1)
