"""Asks again, with feedback, while the answer is wrong; each further try is worth less."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from llmkit.config.scoring import ScoringConfig
from llmkit.config.section import PluginKind, PluginSection, Section, all_defaults

if TYPE_CHECKING:
    from llmkit.rollout.workflows.retrying import Retrying


class Config(Section):
    """`sampling.max_new_tokens` is of all tries together, feedback included."""

    max_turns: int = Field(2, ge=1)
    """Most tries."""
    feedback: str = Field("That is not right. Find the mistake and answer again.", min_length=1)
    """What the user says to a wrong answer."""
    discount: float = Field(0.9, gt=0, le=1)
    """The reward is multiplied by this for each try after the first."""
    verifier: Annotated[PluginSection, PluginKind("rewards", "gsm8k")]
    """The reward that tells right from wrong; it sees the last try alone. What trains is the run's own reward."""
    scoring: ScoringConfig = all_defaults(ScoringConfig)
    right_at: float = Field(1.0, allow_inf_nan=False)
    """Value of the verifier from which on an answer is right."""
    max_turn_tokens: int | None = Field(None, ge=1)
    """Most tokens of one try; unset leaves it all that there are."""


def build(config: Config) -> "Retrying":
    """Make the workflow.

    Raises:
        LLMKitError: the verifier cannot be built.
    """
    from llmkit.rollout.workflows.retrying import Retrying

    return Retrying(config)
