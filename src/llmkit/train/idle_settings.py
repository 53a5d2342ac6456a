"""Settings that change nothing beside the others of their run, which a user should hear of."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmkit.config.algorithms import DPOConfig, GRPOConfig
from llmkit.config.optim import OptimConfig
from llmkit.config.schema import PairBatchConfig, RolloutBatchConfig
from llmkit.config.section import Section
from llmkit.terminal import note, warn

if TYPE_CHECKING:
    import torch

    from llmkit.models.policy import Policy


def warn_of_idle_settings(algorithm: DPOConfig | GRPOConfig, temperature: float = 1.0) -> None:
    """Name every setting without effect, and those whose effect is easily mistaken."""
    found = idle_dpo_settings(algorithm) if isinstance(algorithm, DPOConfig) else idle_grpo_settings(algorithm)
    for text in found:
        warn(text)
    if isinstance(algorithm, GRPOConfig) and algorithm.kl_coef:
        for text in mistaken_kl_settings(algorithm, temperature):
            warn(text)


def idle_dpo_settings(algorithm: DPOConfig) -> Iterator[str]:
    """What has no effect on a preference run."""
    names = set(algorithm.weights)
    chosen = f"algorithm.losses={', '.join(sorted(names))}"
    if not names & {"sigmoid", "robust", "exo"}:
        yield from idle(algorithm, ("label_smoothing",), f"{chosen} has no use for it")
    if "robust" in names and not algorithm.label_smoothing:
        yield "algorithm.losses=robust is the same as sigmoid without algorithm.label_smoothing"
    if "discopop" not in names:
        yield from idle(algorithm, ("discopop_temperature",), f"{chosen} has no use for it")
    if names == {"sft"}:
        unused = ("beta", "reference_free", "precompute_reference")
        yield from idle(algorithm, unused, "algorithm.losses=sft compares with no reference model")
    elif algorithm.reference_free:
        yield from idle(algorithm, ("precompute_reference",), "algorithm.reference_free has no reference model")


def idle_grpo_settings(algorithm: GRPOConfig) -> Iterator[str]:
    """What has no effect on a run of reinforcement learning."""
    ratios = ("ratio", "clip_low", "clip_high", "dual_clip", "sapo_temperatures")
    used = {
        "clip": ("ratio", "clip_low", "clip_high", "dual_clip"),
        "cispo": ("ratio", "clip_low", "clip_high"),
        "sapo": ("ratio", "sapo_temperatures"),
        "reinforce": (),
    }[algorithm.loss]
    unused = [name for name in ratios if name not in used]
    yield from idle(algorithm, unused, f"algorithm.loss={algorithm.loss} has no use for it")
    if algorithm.updates_per_step == 1:
        yield from idle(algorithm, used, "with algorithm.updates_per_step=1 every probability ratio is 1")
    if algorithm.average != "constant":
        yield from idle(algorithm, ("average_length",), f"algorithm.average={algorithm.average} counts tokens")
    if not algorithm.kl_coef:
        yield from idle(algorithm, ("kl_estimator", "kl_in"), "algorithm.kl_coef is 0")
    if algorithm.correction.action == "none":
        correction = ("level", "lower", "upper")
        yield from idle(
            algorithm.correction, correction, "algorithm.correction.action is none", "algorithm.correction."
        )
    if not algorithm.reward_shaping.overlong_fraction:
        why = "algorithm.reward_shaping.overlong_fraction is 0"
        yield from idle(algorithm.reward_shaping, ("overlong_penalty",), why, "algorithm.reward_shaping.")


def mistaken_kl_settings(algorithm: GRPOConfig, temperature: float) -> Iterator[str]:
    """What a KL penalty may not mean."""
    if temperature != 1.0:
        yield (
            f"algorithm.kl_coef with sampling.temperature={temperature:g}: the divergence is that of policy and "
            "reference model at this temperature, not of the models as they are; 1 makes them the same"
        )
    if algorithm.kl_estimator == "k1" and algorithm.kl_in == "loss":
        yield (
            "algorithm.kl_estimator=k1 in the loss: its gradient is 0 on average, so nothing holds the policy to its "
            "reference; use k2 or k3, or algorithm.kl_in=reward"
        )


def warn_of_idle_optim_settings(optim: OptimConfig) -> None:
    """Name every setting of the schedule without effect, and a schedule that goes badly with its optimizer."""
    for text in idle_optim_settings(optim):
        warn(text)


def idle_optim_settings(optim: OptimConfig) -> Iterator[str]:
    """What has no effect on the learning rate."""
    why = f"optim.schedule={optim.schedule} has no use for it"
    if optim.schedule != "cosine_restarts":
        yield from idle(optim, ("restart_steps", "restart_growth"), why, "optim.")
    if optim.schedule != "wsd":
        yield from idle(optim, ("decay_ratio",), why, "optim.")
    if optim.schedule == "constant":
        yield from idle(optim, ("min_learning_rate_ratio",), why, "optim.")
    if optim.on_nonfinite == "raise":
        yield from idle(optim, ("max_skipped_steps",), "optim.on_nonfinite is raise", "optim.")
    if optim.spike_factor is None:
        yield from idle(optim, ("spike_window",), "optim.spike_factor is unset", "optim.")
    if optim.optimizer.name == "schedule_free" and optim.schedule != "constant":
        yield (
            f"optim.schedule={optim.schedule} with optim.optimizer=schedule_free: the average of the weights is there "
            "to replace a falling learning rate; use optim.schedule=constant"
        )


def idle(section: Section, names: Sequence[str], why: str, prefix: str = "algorithm.") -> Iterator[str]:
    """A sentence for each setting that is not at its default."""
    for name in names:
        value, default = getattr(section, name), type(section).model_fields[name].default
        if value != default:
            yield f"{prefix}{name}={value} has no effect: {why}"


def can_offload(device: "torch.device") -> bool:
    """Whether activations can go to the host; say so where they are there anyway."""
    if device.type != "cuda":
        warn(f"device.offload_activations has no effect on {device.type}: activations are in the host's memory already")
    return device.type == "cuda"


def warn_of_repeated_prompts(policy: "Policy", batch: PairBatchConfig | RolloutBatchConfig) -> None:
    """Say that prompts are computed again for each answer, where the model leaves no other way."""
    if batch.share_prompts and not policy.can_share_prompts:
        note(
            f"batch.share_prompts has no effect on {policy.model.config.model_type}: its layers cannot be told what "
            "sequences share, so prompts are computed once for each answer."
        )
