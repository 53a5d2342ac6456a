"""The algorithms that training runs choose from: which formula, with which constants.

Loss names live here, where no torch is needed; `llmkit.algorithms` has the formula of each.
"""

import math
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from llmkit.config.section import Nonsemantic, Section, all_defaults

Average = Literal["token", "sequence"]
PREFERENCE_LOSSES = (
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo", "nca", "bco", "sppo", "apo_zero", "apo_down",
    "discopop", "sft",
)  # fmt: skip
"""Every loss of preference pairs."""
KNOWN_ELSEWHERE = {
    "cdpo": "'sigmoid' with algorithm.label_smoothing above 0",
    "dpo": "'sigmoid'",
    "rpo": "'sigmoid' and 'sft', whose weight is RPO's alpha",
    "slic": "'hinge'",
}
"""Published methods that are combinations of the losses here."""


class SFTConfig(Section):
    """Supervised fine-tuning: cross-entropy of the answer's tokens."""

    loss: Literal["cross_entropy", "dft"] = "cross_entropy"
    """`cross_entropy`; `dft` weighs each token's loss with the probability that the model gives it, so that what it
    finds absurd is not forced on it (arXiv:2508.05629)."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread evenly over the vocabulary; held-out losses are measured without it."""
    average: Average = "token"
    """`token`: every trained token of the step counts alike; `sequence`: every row does."""

    @model_validator(mode="after")
    def _targets_are_one_kind(self) -> Self:
        if self.loss == "dft" and self.label_smoothing:
            raise ValueError(
                f"algorithm.label_smoothing={self.label_smoothing:g} does not go with algorithm.loss=dft, which trusts "
                "the model where smoothing trusts no one; set one of them back"
            )
        return self


class DPOConfig(Section):
    """Direct preference optimization (arXiv:2305.18290) and the losses that came after it."""

    losses: dict[str, float] = Field({"sigmoid": 1.0})
    """Losses by name with their weights, added up: sigmoid, sigmoid_norm, hinge, ipo, robust, exo, nca, bco, sppo,
    apo_zero, apo_down, discopop, sft. Naming any replaces the default; a weight of 0 leaves out one that a preset
    names."""
    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to the reference model."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Probability that a preference label is wrong: for `sigmoid` (conservative DPO), `robust` and `exo`."""
    reference_free: bool = False
    """Compare with a model that finds every answer equally likely; no reference model is loaded."""
    precompute_reference: bool = False
    """Ask the reference model about every pair before training, and free its memory; the answers are kept in the cache
    for the next run with the same model and data."""
    discopop_temperature: float = Field(0.05, gt=0)
    """Margin, in rewards, at which `discopop` changes from one of its two forms to the other."""

    @field_validator("losses")
    @classmethod
    def _losses_exist(cls, losses: dict[str, float]) -> dict[str, float]:
        for name, weight in losses.items():
            if name not in PREFERENCE_LOSSES:
                raise ValueError(f"no preference loss named '{name}' (algorithm.losses.{name}). {_meant(name)}")
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"a weight must be 0 or more, and algorithm.losses.{name} is {weight:g}")
        if not any(losses.values()):
            raise ValueError(f"no loss has a weight above 0; name one of {', '.join(PREFERENCE_LOSSES)}")
        return losses

    @property
    def weights(self) -> dict[str, float]:
        """The losses that count, with their weights."""
        return {name: weight for name, weight in self.losses.items() if weight}

    @property
    def needs_reference(self) -> bool:
        """Whether a reference model is asked for its log-probabilities."""
        return not self.reference_free and set(self.weights) != {"sft"}


class RewardShapingConfig(Section):
    """What is made of rewards before advantages: `clip((reward + overlong penalty + bias) * scale)`."""

    bias: float = Field(0.0, allow_inf_nan=False)
    """Added to every reward."""
    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Multiplies every reward."""
    clip: float | None = Field(None, gt=0)
    """Largest reward in either direction, after bias and scale; unset leaves all as they are."""
    overlong_fraction: float = Field(0.0, ge=0, le=1)
    """Share of `sampling.max_new_tokens`, at the end of a completion, over which a penalty grows from 0 (DAPO); 0
    penalizes no length."""
    overlong_penalty: float = Field(1.0, gt=0)
    """What a completion of full length loses, in reward units."""


class CorrectionConfig(Section):
    """How tokens are weighed that the policy would not have sampled as the engine did (decoupled PPO)."""

    action: Literal["none", "truncate", "mask"] = "none"
    """`truncate` multiplies each loss by policy / engine probability, held within bounds; `mask` by the same, and by 0
    outside of them; `none` takes the engine's tokens for the policy's own."""
    level: Literal["token", "sequence"] = "token"
    """Whether each token has a weight, or each sequence: the geometric mean of its tokens' weights."""
    lower: float = Field(0.0, ge=0)
    """Smallest weight."""
    upper: float = Field(2.0, gt=0)
    """Largest weight."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.lower >= self.upper:
            raise ValueError(
                f"algorithm.correction.lower ({self.lower:g}) must be less than algorithm.correction.upper "
                f"({self.upper:g})"
            )
        return self


class MismatchConfig(Section):
    """When trainer and engine disagree too much about the probabilities of what the engine sampled."""

    max_kl: float | None = Field(0.01, gt=0)
    """Most KL divergence per token, nats (metric `logprob_mismatch_kl`); above it an alarm rings, unset never."""
    max_abs_p: float | None = Field(0.5, gt=0, le=1)
    """Most difference of any one token's probabilities (metric `logprob_mismatch_abs_p_max`); above it an alarm rings,
    unset never."""
    on_alarm: Literal["warn", "stop"] = "warn"
    """`warn` tells of it and goes on; `stop` ends the run before such a step changes the weights."""


class GRPOConfig(Section):
    """Group-relative policy optimization (arXiv:2402.03300) and its kin, as choices of one loss."""

    group_size: int = Field(8, ge=1)
    """Completions sampled per prompt."""
    reward_shaping: RewardShapingConfig = all_defaults(RewardShapingConfig)
    baseline: Literal["group_mean", "leave_one_out", "batch_mean", "none"] = "group_mean"
    """What is taken off a reward: its group's mean, the mean of the others in its group (RLOO), the step's mean,
    nothing."""
    advantage_scale: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the deviation of their group's rewards, that of the whole step (which also makes
    their mean 0), nothing (Dr. GRPO)."""
    loss: Literal["clip", "cispo", "sapo", "reinforce"] = "clip"
    """`clip` holds probability ratios within bounds (PPO); `cispo` holds the weight of a token's gradient and keeps the
    gradient; `sapo` lets it fade out; `reinforce` has no ratio."""
    ratio: Literal["token", "sequence"] = "token"
    """Whether each token has a probability ratio, or each sequence: the geometric mean of its tokens' (GSPO)."""
    clip_low: float = Field(0.2, gt=0, le=1)
    """The probability ratio is clipped below 1 minus this."""
    clip_high: float = Field(0.2, gt=0)
    """The probability ratio is clipped above 1 plus this."""
    dual_clip: float | None = Field(None, gt=1)
    """Ratio at which the loss of a bad token stops growing, 3 for example; unset lets it grow."""
    sapo_temperatures: tuple[float, float] = (1.0, 1.05)
    """How soon `sapo` fades out, for good and for bad tokens; a greater number is sooner."""
    average: Literal["token", "sequence", "constant"] = "token"
    """`token`: every sampled token of the step counts alike (DAPO); `sequence`: every completion does (GRPO);
    `constant`: sums over completions, divided by their number times a fixed length (Dr. GRPO)."""
    average_length: int | None = Field(None, ge=1)
    """Tokens of that fixed length; unset is `sampling.max_new_tokens`."""
    kl_coef: float = Field(0.0, ge=0)
    """Weight of the KL divergence from the reference model; 0 needs no reference model."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """How the divergence is estimated from sampled tokens: the log-ratio, half its square, or the unbiased estimate
    that is never negative."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Whether the divergence is a term of the loss, or is taken off the rewards of a token and of those before it."""
    entropy_coef: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight of the entropy bonus, which is taken off the loss."""
    correction: CorrectionConfig = all_defaults(CorrectionConfig)
    mismatch: Annotated[MismatchConfig, Nonsemantic] = all_defaults(MismatchConfig)
    mask_truncated: bool = False
    """Leave completions that reached `sampling.max_new_tokens` out of the loss; their groups still count them."""
    max_sampling_rounds: int = Field(1, ge=1)
    """Above 1, groups whose rewards are all equal are dropped and as many new prompts are drawn in their place, until
    the step is full or this many rounds were sampled (DAPO's dynamic sampling)."""
    updates_per_step: int = Field(1, ge=1)
    """Optimizer steps taken on each batch of rollouts, whole groups each and as evenly as they go; 1 is on policy."""

    @field_validator("sapo_temperatures")
    @classmethod
    def _temperatures_are_positive(cls, value: tuple[float, float]) -> tuple[float, float]:
        if min(value) <= 0:
            raise ValueError(f"both must be greater than 0, got {value[0]:g} and {value[1]:g}")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        compares = self.baseline in ("group_mean", "leave_one_out")
        if self.group_size == 1 and (compares or self.max_sampling_rounds > 1):
            needs = f"algorithm.baseline={self.baseline}" if compares else "algorithm.max_sampling_rounds"
            raise ValueError(
                f"algorithm.group_size=1 leaves nothing to compare with, which {needs} does; sample at least 2, or use "
                "algorithm.baseline=batch_mean with algorithm.advantage_scale=batch and one sampling round"
            )
        if self.advantage_scale == "group" and not compares:
            raise ValueError(
                f"algorithm.advantage_scale=group does not go with algorithm.baseline={self.baseline}: a group of "
                "equal rewards would divide by 0; use batch or none, or compare within groups"
            )
        if self.kl_coef and self.kl_in == "reward" and self.advantage_scale == "group":
            raise ValueError(
                "algorithm.kl_in=reward does not go with algorithm.advantage_scale=group, which knows rewards of whole "
                "completions only; use batch or none"
            )
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether a reference model is asked for its log-probabilities."""
        return self.kl_coef > 0

    def check_batch(self, prompts_per_step: int) -> None:
        """Check that a step can be divided as asked for.

        Raises:
            ValueError: there are more updates than prompts.
        """
        if self.updates_per_step > prompts_per_step:
            raise ValueError(
                f"algorithm.updates_per_step ({self.updates_per_step}) is more than batch.prompts_per_step "
                f"({prompts_per_step}), and a group is never divided; lower the first or raise the second"
            )


def _meant(name: str) -> str:
    """What an unknown loss may have meant."""
    if name.lower() in KNOWN_ELSEWHERE:
        return f"It is {KNOWN_ELSEWHERE[name.lower()]}"
    plain = name.lower().removesuffix("_pair").removesuffix("_hard")
    close = get_close_matches(plain, PREFERENCE_LOSSES, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}There are: {', '.join(PREFERENCE_LOSSES)}"
