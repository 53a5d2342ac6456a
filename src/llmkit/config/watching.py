"""Which metric decides over the best checkpoint and over stopping early, and which way it gets better."""

from typing import Literal

from llmkit.config.schema import CheckpointConfig, EvalConfig, GenerateConfig, RolloutEvalConfig

LESS_IS_BETTER = ("loss", "kl", "perplexity", "error")
MORE_IS_BETTER = ("reward", "accuracy", "margin", "score")

Direction = Literal["min", "max"]


def watched_metric(checkpoint: CheckpointConfig, evaluation: EvalConfig) -> str | None:
    """The metric to watch; None when the run neither keeps a best checkpoint nor stops early."""
    if checkpoint.best_metric is not None:
        return checkpoint.best_metric
    if not evaluation.patience:
        return None
    return "eval_reward_mean" if isinstance(evaluation, RolloutEvalConfig) else "eval_loss"


def direction(metric: str, mode: Literal["auto", "min", "max"]) -> Direction:
    """Whether less or more of a metric is better.

    Raises:
        ValueError: `mode` leaves it to the name, and the name does not say.
    """
    if mode != "auto":
        return mode
    words = metric.split("_")
    less, more = any(word in words for word in LESS_IS_BETTER), any(word in words for word in MORE_IS_BETTER)
    if less == more:
        raise ValueError(
            f"checkpoint.best_metric={metric}: its name does not say whether less or more is better; set "
            "checkpoint.best_mode to min or max"
        )
    return "min" if less else "max"


def check_watching(checkpoint: CheckpointConfig, evaluation: EvalConfig, *, has_held_out: bool) -> None:
    """Refuse to watch what is never measured.

    Args:
        has_held_out: whether the run has rows that it measures itself on.

    Raises:
        ValueError: it says which settings do not go together.
    """
    metric = watched_metric(checkpoint, evaluation)
    if metric is None:
        return
    setting = "checkpoint.best_metric" if checkpoint.best_metric is not None else "eval.patience"
    if not metric.startswith("eval_"):
        raise ValueError(f"checkpoint.best_metric={metric}: must be a metric of evaluations, such as eval_loss")
    direction(metric, checkpoint.best_mode)
    if not has_held_out:
        raise ValueError(
            f"{setting} needs rows to measure on: set eval_dataset, or data.validation_fraction to hold some out"
        )
    if evaluation.patience and not evaluation.every_steps:
        raise ValueError(
            f"eval.patience={evaluation.patience} needs evaluations while the run trains: set eval.every_steps"
        )


def check_answering(generate: GenerateConfig, max_length: int, *, has_held_out: bool) -> None:
    """Refuse to answer questions that are not there, and answers that leave no room for any.

    Args:
        max_length: most tokens of question and answer.
        has_held_out: whether the run has rows that it measures itself on.

    Raises:
        ValueError: it says which settings do not go together.
    """
    if generate.reward is None:
        return
    if not has_held_out:
        raise ValueError(
            f"eval.generate.reward={generate.reward.name} needs rows to answer: set eval_dataset, or "
            "data.validation_fraction to hold some out"
        )
    if generate.max_new_tokens >= max_length:
        raise ValueError(
            f"eval.generate.max_new_tokens ({generate.max_new_tokens}) leaves no room for a question within "
            f"data.max_length ({max_length}); lower the first or raise the second"
        )
