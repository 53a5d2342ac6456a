"""What a run tells its adapter, and what the two refuse together."""

from typing import Any

import pytest
import torch

from llmkit.config.resolve import resolve
from llmkit.config.runs import SCHEMAS
from llmkit.errors import ConfigError
from llmkit.train.adapting import begin_adapter
from llmkit.train.first_rows import first_batches
from llmkit.types import PreferencePair, Sample, Source

NO_ROWS: Any = lambda count: []  # noqa: E731 - shorter than a function that does nothing


def run_of(command: str, *settings: str) -> Any:
    return resolve(SCHEMAS[command], command=command, environ={}, overrides=["dataset=arithmetic", *settings]).run


@pytest.mark.parametrize("name", ["prompt_tuning", "p_tuning", "prefix_tuning", "cartridge", "shadow"])
def test_what_cannot_sample_does_not_train_where_answers_are_sampled(name: str):
    with pytest.raises(ConfigError, match=f"adapter.name={name}: engines that sample answers cannot use this adapter"):
        begin_adapter(run_of("train/grpo", f"adapter.name={name}"), 10, NO_ROWS)
    begin_adapter(run_of("train/dpo", f"adapter.name={name}"), 10, NO_ROWS)


@pytest.mark.parametrize("command", ["train/dpo", "train/grpo"])
def test_what_draws_numbers_does_not_train_where_passes_are_compared(command: str):
    with pytest.raises(ConfigError, match=r"adapter.name=pvera draws numbers in every training pass"):
        begin_adapter(run_of(command, "adapter.name=pvera"), 10, NO_ROWS)
    with pytest.raises(ConfigError, match="leave them 0"):
        begin_adapter(run_of(command, "adapter.name=loha", "adapter.module_dropout=0.1"), 10, NO_ROWS)
    begin_adapter(run_of(command, "adapter.name=loha"), 10, NO_ROWS)


def test_a_start_from_data_has_no_data_where_answers_are_sampled():
    with pytest.raises(ConfigError, match="this run has none: its answers are sampled"):
        begin_adapter(run_of("train/grpo", "adapter.name=eva"), 10, NO_ROWS)


def test_a_schedule_counts_optimizer_steps():
    run = run_of("train/grpo", "adapter.name=adalora", "algorithm.updates_per_step=3")
    adapter: Any = begin_adapter(run, 10, NO_ROWS)
    assert adapter.peft_options()["total_step"] == 30


def test_the_base_model_is_named_as_it_lasts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    local: Any = begin_adapter(run_of("train/sft", "adapter.name=lora", "model.path=model"), 10, NO_ROWS)
    assert local.base_model() == {"base_model_name_or_path": str(tmp_path / "model"), "revision": None}
    hub: Any = begin_adapter(
        run_of("train/sft", "adapter.name=lora", "model.path=org/m", "model.revision=v1"), 10, NO_ROWS
    )
    assert hub.base_model() == {"base_model_name_or_path": "org/m", "revision": "v1"}


class Steps:
    """Data of numbered steps, two items each."""

    def __init__(self, pairs: bool) -> None:
        self.step = 0
        self.pairs = pairs

    def next_step(self) -> list[Any]:
        self.step += 1
        sample = Sample([self.step] * 3, [1.0] * 3, Source("steps", self.step))
        return [PreferencePair(sample, sample)] if self.pairs else [sample, sample]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


@pytest.mark.parametrize("pairs", [False, True])
def test_looking_at_rows_does_not_move_the_place(pairs: bool):
    data = Steps(pairs)
    data.next_step()
    batches = first_batches(data, 3, 6, torch.device("cpu"))
    assert [batch.token_ids.tolist() for batch in batches] == [[step] * 6 for step in (2, 3, 4)]
    assert data.step == 1


def test_no_more_rows_are_drawn_than_are_looked_at():
    assert [len(one.token_ids) for one in first_batches(Steps(False), 3, 3, torch.device("cpu"))] == [3, 3, 3]
