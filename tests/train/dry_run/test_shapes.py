import pytest

from llmkit.config.resolve import resolve
from llmkit.config.runs import DPORun, SFTRun, schema_of
from llmkit.errors import ConfigError
from llmkit.train.dry_run.shapes import StepShapes


def shapes(*settings: str, lengths: list[int], num_rows: int | None, command: str = "train/sft") -> StepShapes[int]:
    overrides = ["dataset=arithmetic", *settings]
    run = resolve(schema_of(command), command=command, overrides=overrides, environ={}).run
    assert isinstance(run, SFTRun | DPORun)
    return StepShapes(run, lengths, lambda item: item, num_rows)


def test_rows_per_step_are_rows_per_step():
    found = shapes("batch.rows_per_step=3", lengths=[10], num_rows=100)
    assert found.next_step() == [10, 10, 10]
    assert found.mean_tokens == found.largest_step() == 30
    assert found.total_steps == 34  # 100 / 3, rounded up


def test_a_step_of_tokens_has_as_many_rows_as_fit():
    found = shapes("batch.tokens_per_step=100", lengths=[30], num_rows=100)
    assert found.next_step() == [30, 30, 30]
    assert found.total_steps == 34  # 3,000 tokens by 90 tokens


@pytest.mark.parametrize(("command", "tokens"), [("train/sft", 128), ("train/dpo", 256)])
def test_packed_bins_are_filled(command: str, tokens: int):
    packed = ("batch.packing=best_fit", "batch.rows_per_step=2", "data.max_length=64")
    found = shapes(*packed, lengths=[4], num_rows=64, command=command)
    assert found.mean_tokens == tokens
    assert found.total_steps == 64 * 4 / tokens


def test_the_largest_step_is_larger_than_the_mean():
    found = shapes("batch.rows_per_step=4", "max_steps=7", lengths=[1, 100], num_rows=None)
    assert found.total_steps == 7
    assert found.mean_tokens == pytest.approx(202, rel=0.15)
    assert found.largest_step() == 400


def test_a_stream_needs_a_number_of_steps():
    with pytest.raises(ConfigError, match="set --max-steps N"):
        shapes(lengths=[1], num_rows=None)
