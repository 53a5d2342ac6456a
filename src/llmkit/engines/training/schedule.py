"""The learning rate of each step: pure functions, as shares of the peak."""

import math

from llmkit.config.optim import ScheduleConfig


def learning_rate(step: int, config: ScheduleConfig, total_steps: int) -> float:
    """Learning rate of optimizer step `step`, from 0.

    It rises linearly over the warm-up and reaches its peak in the first step after it; then it follows the schedule
    down to `min_learning_rate_ratio` of the peak, which `linear`, `cosine` and `wsd` would have in the step after the
    last.
    """
    warmup = warmup_steps(config, total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return config.learning_rate
    left = share_left(step - warmup, config, total_steps - warmup, warmup)
    floor = config.min_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * left)


def warmup_steps(config: ScheduleConfig, total_steps: int) -> int:
    """How many steps warm up."""
    return config.warmup_steps or math.ceil(config.warmup_ratio * total_steps)


def share_left(step: int, config: ScheduleConfig, num_steps: int, warmup: int) -> float:
    """What is left of the way from peak to floor, from 1 to 0.

    Args:
        step: from 0 after warm-up.
        num_steps: after warm-up.
        warmup: steps before.
    """
    progress = min(1.0, step / max(1, num_steps))
    match config.schedule:
        case "linear":
            return 1 - progress
        case "cosine":
            return cosine(progress)
        case "cosine_restarts":
            return cosine(cycle_progress(step, config.restart_steps, config.restart_growth))
        case "wsd":
            return stable_then_down(progress, config.decay_ratio)
        case "inverse_sqrt":
            return inverse_sqrt(step, warmup)
        case "constant":
            return 1.0


def cosine(progress: float) -> float:
    """Half a period of the cosine, from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def cycle_progress(step: int, first: int, growth: float) -> float:
    """How far the present cycle is, in [0, 1), when each cycle is `growth` times as long as the one before it.

    Source: arXiv:1608.03983 (SGDR), section 3: T_cur / T_i with T_i = T_0 · T_mult^i.
    """
    start, length = 0.0, float(first)
    while step >= start + length:
        start += length
        length *= growth
    return (step - start) / length


def stable_then_down(progress: float, decay_ratio: float) -> float:
    """1 until the last `decay_ratio` of the way, then linearly to 0.

    Source: arXiv:2404.06395 (MiniCPM), section 4.2, with a linear decay as arXiv:2405.18392 advises.
    """
    return min(1.0, (1 - progress) / decay_ratio)


def inverse_sqrt(step: int, warmup: int) -> float:
    """sqrt((warmup + 1) / (warmup + 1 + step)): 1 at the first step after warm-up.

    Source: arXiv:1706.03762, equation 3, with steps counted from 1.
    """
    return math.sqrt((warmup + 1) / (warmup + 1 + step))
