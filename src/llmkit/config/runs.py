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
    RolloutBatchConfig,
    SamplingConfig,
    SFTConfig,
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
    model: ModelConfig = ModelConfig()
    adapter: Annotated[PluginSection, PluginKind("adapters", "full")]
    dataset: Annotated[PluginSection, PluginKind("datasets")]
    eval_dataset: Annotated[PluginSection | None, PluginKind("datasets")] = None
    formatter: Annotated[PluginSection, PluginKind("formatters", "auto")]
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    device: DeviceConfig = DeviceConfig()
    trackers: Annotated[tuple[PluginSection, ...], PluginKind("trackers"), Nonsemantic] = ()


class SFTRun(TrainingRun):
    """`llmkit train sft`: supervised fine-tuning."""

    algorithm: SFTConfig = SFTConfig()
    batch: BatchConfig = BatchConfig()


class DPORun(TrainingRun):
    """`llmkit train dpo`: direct preference optimization."""

    algorithm: DPOConfig = DPOConfig()
    batch: BatchConfig = BatchConfig()


class GRPORun(TrainingRun):
    """`llmkit train grpo`: reinforcement learning from verifiable rewards."""

    algorithm: GRPOConfig = GRPOConfig()
    batch: RolloutBatchConfig = RolloutBatchConfig()
    sampling: SamplingConfig = SamplingConfig()
    engine: Annotated[PluginSection, PluginKind("engines", "native")]
    workflow: Annotated[PluginSection, PluginKind("workflows", "single_turn")]
    reward: Annotated[PluginSection, PluginKind("rewards", "gsm8k")]

    @model_validator(mode="after")
    def _completion_fits(self) -> Self:
        if self.sampling.max_new_tokens >= self.data.max_length:
            raise ValueError(
                f"sampling.max_new_tokens ({self.sampling.max_new_tokens}) leaves no room for a prompt within "
                f"data.max_length ({self.data.max_length}); lower the first or raise the second"
            )
        return self
