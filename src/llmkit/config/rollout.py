"""The configuration of `llmkit rollout`."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from llmkit.config.schema import DeviceConfig, ModelConfig, ReadingConfig
from llmkit.config.scoring import ScoringConfig
from llmkit.config.section import Nonsemantic, PluginKind, PluginSection, Section, all_defaults

KEEP = re.compile(r"best|all|top-[1-9]\d*")
EXTENDABLE = ("max_rows", "group_size")
"""Keys that may be raised when a run goes on: what a rollout draws depends on its place alone."""


class RolloutDataConfig(ReadingConfig):
    """How rows become prompts."""

    max_length: int | None = Field(None, ge=2)
    """Most tokens of prompt and completion together; unset is the model's context."""
    overlength: Literal["error", "drop"] = "error"
    """What happens to a prompt that leaves no room for a completion: stop, or leave it out and count it."""


class RolloutSamplingConfig(Section):
    """How completions are drawn."""

    max_new_tokens: int = Field(256, ge=1)
    """Most tokens of one completion."""
    temperature: float = Field(1.0, ge=0)
    """Divides the logits before sampling; 0 is greedy."""
    top_k: int = Field(0, ge=0)
    """Draw among so many of the likeliest tokens; 0 keeps every token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw among the likeliest tokens that together have this probability."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Leave out tokens less likely than this times the likeliest one; 0 keeps all."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1, tokens that are there already become less likely."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion, besides the tokens that end a turn."""
    logprob_kind: Literal["scaled", "raw", "processed", "any"] = "scaled"
    """Which log-probabilities to write: `scaled` after temperature and nothing else, which training compares with;
    `raw` the model's own; `processed` of what was drawn from; `any` none, for servers that give none or others."""


class SelectConfig(Section):
    """What of the rollouts becomes training data."""

    keep: str | None = None
    """Rollouts of each group to write as demonstrations, by reward: `best`, `top-4`, `all`; unset writes none."""
    above: float | None = None
    """Keep only rollouts with more reward than this; of pairs, the better one must have it."""
    pairs: Literal["best-worst"] | None = None
    """Rollouts of each group to write as a preference pair; unset writes none."""
    margin: float = Field(0.0, ge=0)
    """By how much more the better one of a pair must be rewarded."""
    truncated: bool = False
    """Take completions that were cut at the limit too; whoever learns from them learns not to end."""
    form: Literal["messages", "tokens"] = "messages"
    """Demonstrations as `messages`, or as the very `tokens` that were sampled, which rollouts of several turns need."""

    @field_validator("keep")
    @classmethod
    def _keep_is_known(cls, value: str | None) -> str | None:
        if value is not None and not KEEP.fullmatch(value):
            raise ValueError(f"{value!r} is none of best, all, top-N (as in top-4)")
        return value


class RolloutRun(Section):
    """`llmkit rollout`: sample completions for a data set, score them, write them down."""

    seed: int = Field(0, ge=0)
    """Fixes sampling: what a rollout draws depends on it and on the rollout's place alone."""
    output_dir: Annotated[str | None, Nonsemantic] = None
    """Directory for everything that the run makes; unset makes a new one under `runs/`."""
    max_rows: int | None = Field(None, ge=1)
    """Rows to read, from the first; unset reads all. A resumed run may have more."""
    group_size: int = Field(1, ge=1)
    """Completions of each prompt. A resumed run may have more."""
    concurrency: Annotated[int, Nonsemantic] = Field(32, ge=1)
    """Most prompts whose completions are under way."""
    timeout_seconds: Annotated[float, Nonsemantic] = Field(3600.0, gt=0)
    """Time that a rollout may take, its turns and rewards included; one that takes longer has failed."""
    max_errors: Annotated[int, Nonsemantic] = Field(20, ge=0)
    """Rollouts that may fail, in engine, workflow or reward; one more stops the run. `errors.jsonl` has each, and
    `--resume` makes them again and begins that file anew."""
    model: ModelConfig = all_defaults(ModelConfig)
    engine: Annotated[PluginSection, PluginKind("engines", "native")]
    """What samples the completions."""
    dataset: Annotated[PluginSection, PluginKind("datasets")]
    """Where the prompts come from."""
    formatter: Annotated[PluginSection, PluginKind("formatters", "auto")]
    """How a row becomes messages; `auto` finds out from the first rows."""
    data: RolloutDataConfig = all_defaults(RolloutDataConfig)
    workflow: Annotated[PluginSection, PluginKind("workflows", "single_turn")]
    """How a rollout is made of a prompt."""
    reward: Annotated[PluginSection | None, PluginKind("rewards")] = None
    """What scores a rollout; unset scores none."""
    scoring: ScoringConfig = all_defaults(ScoringConfig)
    sampling: RolloutSamplingConfig = all_defaults(RolloutSamplingConfig)
    select: Annotated[SelectConfig, Nonsemantic] = all_defaults(SelectConfig)
    device: DeviceConfig = all_defaults(DeviceConfig)

    @model_validator(mode="after")
    def _completion_fits(self) -> Self:
        limit = self.data.max_length
        if limit is not None and self.sampling.max_new_tokens >= limit:
            raise ValueError(
                f"sampling.max_new_tokens ({self.sampling.max_new_tokens}) leaves no room for a prompt within "
                f"data.max_length ({limit}); lower the first or raise the second"
            )
        return self

    @model_validator(mode="after")
    def _selection_has_something_to_go_by(self) -> Self:
        for name in ("keep", "pairs"):
            if getattr(self.select, name) is not None and self.reward is None:
                raise ValueError(f"select.{name} goes by rewards, and the run has none; name one: reward=gsm8k")
        if self.select.pairs is not None and self.group_size < 2:
            raise ValueError("select.pairs needs at least two completions of a prompt; raise group_size")
        return self
