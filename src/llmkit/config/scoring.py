"""How rewards are run: in which processes, for how long, and what their failures mean."""

from typing import Annotated

from pydantic import Field

from llmkit.config.section import Nonsemantic, Section


class ScoringConfig(Section):
    """How rewards are run that are slow or not llmkit's own: in child processes that can be killed."""

    num_workers: Annotated[int | None, Nonsemantic] = Field(None, ge=1)
    """Child processes; unset takes half of the cores, 8 at most. They start when the first reward needs one."""
    timeout_seconds: float = Field(30.0, gt=0)
    """Longest time that one reward may take over one rollout; the child that takes longer is killed."""
    timeout_reward: float | None = Field(None, allow_inf_nan=False)
    """What a reward is that took longer; unset makes it an error."""
    max_memory_mib: int = Field(4096, ge=128)
    """Most memory that a child may ask the system for; what goes beyond fails (Linux)."""
    max_error_fraction: float = Field(0.1, ge=0, le=1)
    """Share of rollouts, of those scored together, whose reward may fail; each leaves its group. More of them stop the
    run with the first error. A timeout counts, unless `timeout_reward` is set."""
