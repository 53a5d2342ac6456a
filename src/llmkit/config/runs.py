"""One schema per run: the whole configuration of a command."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from llmkit.config.schema import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    DeviceConfig,
    DPOConfig,
    EvalConfig,
    GRPOConfig,
    ModelConfig,
    OptimConfig,
    PromptDataConfig,
    RolloutBatchConfig,
    RolloutEvalConfig,
    SamplingConfig,
    SFTConfig,
    SFTDataConfig,
)
from llmkit.config.section import Nonsemantic, PluginKind, PluginSection, Section


class TrainingRun(Section):
    """What every training run has."""

    seed: int = Field(0, ge=0)
    """Fixes initial weights, data order and sampling."""
    output_dir: Annotated[str | None, Nonsemantic] = None
    """Directory for everything that the run makes; unset makes a new one under `runs/`."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps; unset trains for `num_epochs`."""
    num_epochs: float = Field(1.0, gt=0)
    """Passes over the data set, when `max_steps` is unset."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    adapter: Annotated[PluginSection, PluginKind("adapters", "full")]
    """What is trained: `full` every weight, `lora` a few added ones."""
    dataset: Annotated[PluginSection, PluginKind("datasets")]
    """Where the training rows come from."""
    eval_dataset: Annotated[PluginSection | None, PluginKind("datasets")] = None
    """Rows that the run measures itself on; unset measures nothing but the training loss."""
    formatter: Annotated[PluginSection, PluginKind("formatters", "auto")]
    """How a row becomes messages; `auto` finds out from the first rows."""
    optim: OptimConfig = Field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    device: DeviceConfig = Field(default_factory=DeviceConfig)
    trackers: Annotated[tuple[PluginSection, ...], PluginKind("trackers"), Nonsemantic] = ()
    """Where metrics go besides `metrics.jsonl`."""


class SFTRun(TrainingRun):
    """`llmkit train sft`: supervised fine-tuning."""

    algorithm: SFTConfig = Field(default_factory=SFTConfig)
    data: SFTDataConfig = Field(default_factory=SFTDataConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    batch: BatchConfig = Field(default_factory=BatchConfig)


class DPORun(TrainingRun):
    """`llmkit train dpo`: direct preference optimization."""

    algorithm: DPOConfig = Field(default_factory=DPOConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    batch: BatchConfig = Field(default_factory=BatchConfig)


class GRPORun(TrainingRun):
    """`llmkit train grpo`: reinforcement learning from verifiable rewards."""

    algorithm: GRPOConfig = Field(default_factory=GRPOConfig)
    data: PromptDataConfig = Field(default_factory=PromptDataConfig)
    eval: RolloutEvalConfig = Field(default_factory=RolloutEvalConfig)
    batch: RolloutBatchConfig = Field(default_factory=RolloutBatchConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    engine: Annotated[PluginSection, PluginKind("engines", "native")]
    """What samples the completions."""
    workflow: Annotated[PluginSection, PluginKind("workflows", "single_turn")]
    """How a rollout is made of a prompt."""
    reward: Annotated[PluginSection, PluginKind("rewards", "gsm8k")]
    """What scores a rollout."""

    @model_validator(mode="after")
    def _completion_fits(self) -> Self:
        if self.sampling.max_new_tokens >= self.data.max_length:
            raise ValueError(
                f"sampling.max_new_tokens ({self.sampling.max_new_tokens}) leaves no room for a prompt within "
                f"data.max_length ({self.data.max_length}); lower the first or raise the second"
            )
        return self
