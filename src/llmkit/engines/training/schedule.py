"""The learning rate of each step."""

import math

from llmkit.config.schema import OptimConfig


def learning_rate(step: int, config: OptimConfig, total_steps: int) -> float:
    """Learning rate of optimizer step `step`, from 0.

    It rises linearly over `warmup_steps` and reaches its peak in the first step after them; then it falls to
    `min_learning_rate_ratio` of the peak, which the step after the last would have.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.learning_rate
    progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    left = 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    floor = config.min_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * left)
