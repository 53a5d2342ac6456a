"""The sections that runs are made of. Values, limits and their meaning; the runs themselves are in `runs.py`."""

from typing import Annotated, Literal

from pydantic import Field

from llmkit.config.section import Nonsemantic, Section


class ModelConfig(Section):
    """The model to start from."""

    path: str = "builtin:tiny"
    """Local directory, Hugging Face name, or `builtin:tiny`, the embedded model that a laptop trains in minutes."""
    revision: str | None = None
    """Branch, tag or commit, when `path` is a Hugging Face name."""
    tokenizer: str | None = None
    """Directory or name of the tokenizer, when it is not the model's own."""
    chat_template: str | None = None
    """Jinja file to use in place of the tokenizer's chat template."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Type in which the weights are kept and trained; `auto` is the checkpoint's own."""
    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint."""


class DeviceConfig(Section):
    """Where and in which precision to compute."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes a GPU when there is one."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs matrix products in half the bits (autocast) and keeps weights, loss and optimizer as they are."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; unset takes the cores that other processes leave free when the run starts."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


class DataConfig(Section):
    """How rows become training samples."""

    max_length: int = Field(2048, ge=2)
    """Most tokens of a sample, prompt and answer together; never more than the model's context."""
    overlength: Literal["error", "drop", "truncate"] = "error"
    """What happens to a longer one: stop, leave it out and count it, or cut its end."""
    shuffle: bool = True
    """Draw rows in a new random order each epoch; the order follows from `seed`."""


class SFTDataConfig(DataConfig):
    """How rows become training samples, and which of their tokens train."""

    train_on: Literal["assistant", "last_turn", "all"] = "assistant"
    """Which tokens carry loss; a `weight` on a message overrides it for that message."""


class PromptDataConfig(Section):
    """How rows become prompts."""

    max_length: int = Field(2048, ge=2)
    """Most tokens of prompt and completion together; never more than the model's context."""
    overlength: Literal["error", "drop"] = "error"
    """What happens to a prompt that leaves no room for a completion: stop, or leave it out and count it."""
    shuffle: bool = True
    """Draw rows in a new random order each epoch; the order follows from `seed`."""


class BatchConfig(Section):
    """How much goes into one optimizer step and one forward pass."""

    rows_per_step: int = Field(16, ge=1)
    """Rows (pairs, for preference training) per optimizer step."""
    tokens_per_micro_batch: int = Field(8192, ge=1)
    """Tokens per forward and backward pass; changes memory and speed, never the result."""


class RolloutBatchConfig(Section):
    """How much goes into one reinforcement-learning step."""

    prompts_per_step: int = Field(16, ge=1)
    """Prompts sampled per step; times `algorithm.group_size` completions."""
    tokens_per_micro_batch: int = Field(8192, ge=1)
    """Tokens per forward and backward pass; changes memory and speed, never the result."""


class OptimConfig(Section):
    """AdamW and its learning-rate schedule."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Course of the learning rate after warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0 to its peak."""
    min_learning_rate_ratio: float = Field(0.0, ge=0, le=1)
    """Where the schedule ends, as a share of the peak."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moment estimates."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of AdamW's update."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay; norms, biases and embeddings are left out of it."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them as they are."""


class CheckpointConfig(Section):
    """When a run saves itself."""

    every_steps: Annotated[int, Nonsemantic] = Field(100, ge=0)
    """Steps between checkpoints; 0 saves only at the end and when interrupted."""
    keep_last: Annotated[int, Nonsemantic] = Field(2, ge=1)
    """How many checkpoints to keep."""


class SamplingConfig(Section):
    """How rollouts are drawn."""

    max_new_tokens: int = Field(256, ge=1)
    """Most tokens of one completion."""
    temperature: float = Field(1.0, gt=0)
    """Divides the logits before sampling; the policy's log-probabilities use the same value."""


class SFTConfig(Section):
    """Supervised fine-tuning: cross-entropy of the answer's tokens."""

    average: Literal["token", "sequence"] = "token"
    """`token`: every trained token of the step counts alike; `sequence`: every row does."""


class DPOConfig(Section):
    """Direct preference optimization, arXiv:2305.18290, equation 7."""

    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to the reference model."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Probability that a preference label is wrong (conservative DPO)."""


class GRPOConfig(Section):
    """Group-relative policy optimization, arXiv:2402.03300."""

    group_size: int = Field(8, ge=2)
    """Completions sampled per prompt."""
    scale_by_std: bool = True
    """Divide advantages by the group's deviation; off is the form of arXiv:2503.20783 (Dr. GRPO)."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """The probability ratio is clipped below 1 minus this."""
    clip_high: float = Field(0.2, gt=0)
    """The probability ratio is clipped above 1 plus this."""
    kl_coef: float = Field(0.0, ge=0)
    """Weight of the KL divergence from the reference model (estimator k3); 0 needs no reference model."""
    average: Literal["token", "sequence"] = "token"
    """`token`: every sampled token of the step counts alike (DAPO); `sequence`: every completion does (GRPO)."""
    updates_per_step: int = Field(1, ge=1)
    """Optimizer steps taken on each batch of rollouts; 1 is on policy."""


class EvalConfig(Section):
    """How a run measures itself on rows that it does not train on."""

    every_steps: int = Field(0, ge=0)
    """Steps between evaluations; 0 evaluates at the start and at the end only."""
    max_rows: int = Field(256, ge=1)
    """Rows used, from the start of the evaluation set."""


class RolloutEvalConfig(EvalConfig):
    """How a run measures itself on prompts that it does not train on."""

    temperature: float = Field(0.0, ge=0)
    """Temperature of held-out completions; 0 is greedy."""
