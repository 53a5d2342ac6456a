"""One schema per run: the whole configuration of a command."""

from contextlib import suppress
from difflib import get_close_matches
from typing import Annotated, Self

from pydantic import Field, model_validator

from llmkit.config.algorithms import DPOConfig, GRPOConfig, SFTConfig
from llmkit.config.optim import OptimConfig
from llmkit.config.parallel import ParallelConfig
from llmkit.config.rollout import RolloutRun
from llmkit.config.schema import (
    AnsweringEvalConfig,
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    DeviceConfig,
    ModelConfig,
    PairBatchConfig,
    PromptDataConfig,
    RolloutBatchConfig,
    RolloutEvalConfig,
    SamplingConfig,
    SFTDataConfig,
)
from llmkit.config.scoring import ScoringConfig
from llmkit.config.section import Nonsemantic, PluginKind, PluginSection, Section, all_defaults
from llmkit.config.serving import ServeRun
from llmkit.config.watching import check_answering, check_watching
from llmkit.errors import ConfigError, PluginError


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
    model: ModelConfig = all_defaults(ModelConfig)
    adapter: Annotated[PluginSection, PluginKind("adapters", "full")]
    """What is trained: `full` every weight, `lora` a few added ones."""
    dataset: Annotated[PluginSection, PluginKind("datasets")]
    """Where the training rows come from."""
    eval_dataset: Annotated[PluginSection | None, PluginKind("datasets")] = None
    """Rows that the run measures itself on; unset measures nothing but the training loss."""
    formatter: Annotated[PluginSection, PluginKind("formatters", "auto")]
    """How a row becomes messages; `auto` finds out from the first rows."""
    optim: OptimConfig = all_defaults(OptimConfig)
    checkpoint: CheckpointConfig = all_defaults(CheckpointConfig)
    device: DeviceConfig = all_defaults(DeviceConfig)
    parallel: Annotated[ParallelConfig, Nonsemantic] = all_defaults(ParallelConfig)
    trackers: Annotated[tuple[PluginSection, ...], PluginKind("trackers"), Nonsemantic] = ()
    """Where metrics go besides `metrics.jsonl`."""


class SFTRun(TrainingRun):
    """`llmkit train sft`: supervised fine-tuning."""

    algorithm: SFTConfig = all_defaults(SFTConfig)
    data: SFTDataConfig = all_defaults(SFTDataConfig)
    eval: AnsweringEvalConfig = all_defaults(AnsweringEvalConfig)
    batch: BatchConfig = all_defaults(BatchConfig)

    @model_validator(mode="after")
    def _watching_fits(self) -> Self:
        has_held_out = self.eval_dataset is not None or self.data.validation_fraction > 0
        check_watching(self.checkpoint, self.eval, has_held_out=has_held_out)
        check_answering(self.eval.generate, self.data.max_length, has_held_out=has_held_out)
        return self


class DPORun(TrainingRun):
    """`llmkit train dpo`: direct preference optimization."""

    algorithm: DPOConfig = all_defaults(DPOConfig)
    data: DataConfig = all_defaults(DataConfig)
    eval: AnsweringEvalConfig = all_defaults(AnsweringEvalConfig)
    batch: PairBatchConfig = all_defaults(PairBatchConfig)

    @model_validator(mode="after")
    def _watching_fits(self) -> Self:
        has_held_out = self.eval_dataset is not None or self.data.validation_fraction > 0
        check_watching(self.checkpoint, self.eval, has_held_out=has_held_out)
        check_answering(self.eval.generate, self.data.max_length, has_held_out=has_held_out)
        return self


class GRPORun(TrainingRun):
    """`llmkit train grpo`: reinforcement learning from verifiable rewards."""

    algorithm: GRPOConfig = all_defaults(GRPOConfig)
    data: PromptDataConfig = all_defaults(PromptDataConfig)
    eval: RolloutEvalConfig = all_defaults(RolloutEvalConfig)
    batch: RolloutBatchConfig = all_defaults(RolloutBatchConfig)
    sampling: SamplingConfig = all_defaults(SamplingConfig)
    engine: Annotated[PluginSection, PluginKind("engines", "native")]
    """What samples the completions."""
    workflow: Annotated[PluginSection, PluginKind("workflows", "single_turn")]
    """How a rollout is made of a prompt."""
    reward: Annotated[PluginSection, PluginKind("rewards", "gsm8k")]
    """What scores a rollout."""
    scoring: ScoringConfig = all_defaults(ScoringConfig)

    @model_validator(mode="after")
    def _completion_fits(self) -> Self:
        if self.sampling.max_new_tokens >= self.data.max_length:
            raise ValueError(
                f"sampling.max_new_tokens ({self.sampling.max_new_tokens}) leaves no room for a prompt within "
                f"data.max_length ({self.data.max_length}); lower the first or raise the second"
            )
        return self

    @model_validator(mode="after")
    def _algorithm_fits(self) -> Self:
        self.algorithm.check_batch(self.batch.prompts_per_step)
        return self

    @model_validator(mode="after")
    def _watching_fits(self) -> Self:
        has_held_out = self.eval_dataset is not None or self.data.validation_fraction > 0
        check_watching(self.checkpoint, self.eval, has_held_out=has_held_out)
        return self


SCHEMAS: dict[str, type[Section]] = {
    "rollout": RolloutRun,
    "serve": ServeRun,
    "train/dpo": DPORun,
    "train/grpo": GRPORun,
    "train/sft": SFTRun,
}
"""Schema of each command that is configured. A command plugin adds its own where its `typer.Typer` is made."""


def schema_of(command: str) -> type[Section]:
    """The schema of a command such as `train/grpo`.

    Raises:
        ConfigError: no command of this name is configured.
    """
    if command not in SCHEMAS:
        _import_command(command.partition("/")[0])
    if command in SCHEMAS:
        return SCHEMAS[command]
    known = sorted(SCHEMAS)
    close = [name for name in known if name.endswith(f"/{command}")] or get_close_matches(command, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ConfigError(f"No configured command named '{command}'.{hint} There are: {', '.join(known)}.")


def _import_command(name: str) -> None:
    """Let a command plugin add its schemas."""
    from llmkit import plugins

    with suppress(PluginError):  # a command that is not there is told of as an unknown one
        plugins.load("commands", name)
