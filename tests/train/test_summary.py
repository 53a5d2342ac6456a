import pytest

from llmkit.train.summary import Summary, label, summarize

ROWS = [
    {"step": 0, "time_seconds": 2.0, "eval_reward_mean": 0.25, "eval_accuracy": 0.25, "eval_seconds": 2.0},
    {"step": 1, "time_seconds": 6.0, "reward_mean": 0.3, "num_tokens": 100, "tokens_per_second": 50.0,
     "generation_seconds": 3.0, "training_seconds": 0.5, "peak_memory_bytes": 10},
    {"step": 2, "time_seconds": 12.0, "reward_mean": 0.5, "num_tokens": 300, "tokens_per_second": 100.0,
     "generation_seconds": 1.0, "training_seconds": 0.5, "peak_memory_bytes": 30, "eval_reward_mean": 0.75,
     "eval_accuracy": None, "eval_seconds": 2.0},
]  # fmt: skip


def test_before_and_after_are_the_first_and_last_evaluation():
    summary = summarize(ROWS)
    assert summary.before == {"eval_reward_mean": 0.25}
    assert summary.after == {"eval_reward_mean": 0.75, "eval_accuracy": 0.25}  # measured once: no before


def test_without_evaluation_the_training_figures_stand_in():
    summary = summarize([{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}])
    assert (summary.before, summary.after) == ({"loss": 3.0}, {"loss": 2.0})


def test_speed_is_all_tokens_over_all_their_time():
    # 100 tokens at 50/s take 2 s, 300 at 100/s take 3 s: 400 tokens in 5 s
    summary = summarize(ROWS)
    assert summary.tokens_per_second == pytest.approx(80.0)
    assert summary.num_tokens == 400
    assert summary.peak_memory_bytes == 30


def test_time_is_split_by_activity_and_the_rest_is_named():
    summary = summarize(ROWS)
    assert summary.seconds == 12.0
    assert summary.seconds_by_part == {
        "evaluation": 4.0, "generation": 4.0, "training": 1.0, "everything else": 3.0
    }  # fmt: skip
    assert sum(summary.seconds_by_part.values()) == summary.seconds


def test_a_run_without_steps_has_an_empty_summary():
    assert summarize([]) == Summary()
    assert summarize([{"step": 0, "time_seconds": None, "loss": None}]) == Summary()


def test_labels_are_for_people():
    assert label("eval_reward_mean") == "held-out reward mean"
    assert label("grad_norm") == "grad norm"
    assert label("kl") == "KL"
