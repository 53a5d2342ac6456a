"""How weights change: the optimizer, its learning rate, and what to do when numbers go wrong."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from llmkit.config.section import PluginKind, PluginSection, Section


class ScheduleConfig(Section):
    """The learning rate of each step."""

    learning_rate: float = Field(1e-5, ge=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine", "cosine_restarts", "wsd", "inverse_sqrt"] = "linear"
    """Course of the learning rate after warm-up: `linear` and `cosine` fall to the end of the run; `cosine_restarts`
    falls and begins again (SGDR); `wsd` stays and falls at the end (warm-up, stable, decay); `inverse_sqrt` falls as
    the root of the number of steps grows."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0 to its peak."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """The same as a share of the run's steps, rounded up, in place of `warmup_steps`."""
    min_learning_rate_ratio: float = Field(0.0, ge=0, le=1)
    """Where the schedule ends, as a share of the peak."""
    restart_steps: int = Field(100, ge=1)
    """Steps of the first cycle of `schedule=cosine_restarts`."""
    restart_growth: float = Field(1.0, ge=1)
    """How many times as long as the cycle before it each further one is."""
    decay_ratio: float = Field(0.1, gt=0, le=1)
    """Share of the steps after warm-up in which `schedule=wsd` falls."""

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError(
                f"optim.warmup_steps={self.warmup_steps} and optim.warmup_ratio={self.warmup_ratio:g} both say how "
                "long the warm-up is; set one of them (--set ~optim.warmup_steps takes a preset's away)"
            )
        return self


class OptimConfig(ScheduleConfig):
    """The optimizer, its learning rate, and what guards it."""

    optimizer: Annotated[PluginSection, PluginKind("optimizers", "adamw")]
    """What makes weights of gradients."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay, decoupled from the gradient by every optimizer but sgd. Norms, biases and embeddings have none."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them as they are."""
    on_nonfinite: Literal["raise", "skip"] = "raise"
    """What happens when a loss or gradient is infinite or no number: stop before the weights change, naming the rows,
    or leave the step out and count it."""
    max_skipped_steps: int = Field(10, ge=0)
    """Most steps to leave out with `on_nonfinite=skip`; one more stops the run."""
    spike_factor: float | None = Field(3.0, gt=1)
    """A loss of more than this many times the median of the steps before it is told of, with its rows; null tells of
    none. Losses of reinforcement learning, which lie around 0, are not watched."""
    spike_window: int = Field(64, ge=2)
    """Steps over which that median is taken."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Keep an exponential moving average of the weights, which evaluations then measure: each step keeps this share of
    it. Unset keeps none."""
    export_ema: bool = False
    """Let each checkpoint hold the averaged model, in Hugging Face layout, in `averaged/`."""

    @model_validator(mode="after")
    def _exports_what_is_kept(self) -> Self:
        if self.export_ema and self.ema_decay is None:
            raise ValueError("optim.export_ema=true needs an average: set optim.ema_decay, to 0.999 for example")
        return self
