"""A score that a language model gives, by a rubric: the mean of its votes, from 0 to 1."""

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.config.section import PluginKind, PluginSection, Section, all_defaults

if TYPE_CHECKING:
    from llmkit.rollout.rewards.judging import Judge

IN_PROCESS = True
PROMPT = """You grade an answer to a question.

Question:
{question}

{reference}Answer:
{completion}

{rubric}
Think it over, then {form}."""


class Config(Section):
    """The judge may run in any engine, in this process or elsewhere."""

    engine: Annotated[PluginSection, PluginKind("engines", "native")]
    """What runs the judge."""
    model: ModelConfig = all_defaults(ModelConfig)
    device: DeviceConfig = all_defaults(DeviceConfig)
    prompt: str = PROMPT
    """What the judge is asked. `{question}`, `{completion}`, `{answer}` (of the row), `{reference}` (a paragraph with
    it, empty where the row has none), `{rubric}`, `{form}` (how to write the score), `{lowest}` and `{highest}` are
    filled in."""
    rubric: str = "Grade whether the answer is correct, complete and clear."
    """What to grade."""
    lowest: int = 0
    """The score that becomes 0."""
    highest: int = 10
    """The score that becomes 1."""
    pattern: str = r"[Ss]core\W{0,4}(-?\d+(?:\.\d+)?)"
    """Regular expression whose last match has the score as its first group; without effect where `structured` is."""
    structured: bool = False
    """Hold the judge to JSON, its reasoning and then a score in range, so that no verdict lacks one. The engine must be
    able to: `native` can, and llmkit, vLLM and SGLang as servers."""
    reasoning_characters: int = Field(600, ge=0)
    """Most characters of the reasoning where `structured` is; 0 asks for the score alone."""
    votes: int = Field(1, ge=1)
    """Verdicts asked for; those without a score do not count."""
    temperature: float = Field(0.7, ge=0)
    """Temperature of the verdicts; 0 is greedy, which makes all votes equal."""
    max_new_tokens: int = Field(512, ge=1)
    """Most tokens of a verdict."""
    max_running: int = Field(16, ge=1)
    """Rollouts that are judged at a time."""
    timeout_seconds: float = Field(300.0, gt=0)
    """Longest time for the votes on one rollout."""

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest ({self.lowest}) must be less than highest ({self.highest})")
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(f"votes={self.votes} at temperature=0 would all be equal; raise the temperature")
        if "{completion}" not in self.prompt:
            raise ValueError("the prompt has no {completion}: the judge would not see what it grades")
        return self


def build(config: Config) -> "Judge":
    """Make the judge; its engine starts with the first rollout.

    Raises:
        ModelError: the judge's tokenizer cannot be loaded.
        ConfigError: the pattern is no regular expression with a group.
    """
    from llmkit.rollout.rewards.judging import Judge

    return Judge(config)
