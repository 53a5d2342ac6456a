"""What the steps of several trainers say about them."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmkit.bench.results import Findings, Result
from llmkit.bench.timing import spread
from llmkit.bench.training_cases import Case
from llmkit.errors import BenchError

COMPARED_LOSSES = 50
OURS = "llmkit"
NUM_PASSES = 10
"""Over 32 bits of each parameter in a step of AdamW, at least."""
Step = Mapping[str, float]
BEST: dict[str, Callable[[Iterable[float]], float]] = {
    "tokens_per_second": max,
    "tokens_per_cpu_second": max,
    "peak_memory_bytes": min,
    "generation_seconds": min,
    "training_seconds": min,
}
"""Metrics that are compared, and which of several values is the best one."""


@dataclass
class Runs:
    """The steps of one contender.

    Attributes:
        steps: all of them, in order.
        first: the first one that counts for speed.
        start_memory_bytes: most memory before training.
        peak_memory_bytes: most memory of all.
    """

    steps: list[Step] = field(default_factory=list)
    first: int = 0
    peak_memory_bytes: int = 0

    def take(self, answer: Mapping[str, Any], *, counts: bool) -> None:
        """Add the steps of a turn."""
        self.steps += answer["steps"]
        self.peak_memory_bytes = answer["peak_memory_bytes"]
        if not counts:
            self.first = len(self.steps)

    @property
    def losses(self) -> list[float]:
        """Of the first steps."""
        return [step["loss"] for step in self.steps[:COMPARED_LOSSES]]


def findings(
    case: Case,
    runs: Mapping[str, Runs],
    about: Mapping[str, Any],
    load: float | None,
    limits: Mapping[str, float] | None = None,
) -> Findings:
    """Figures of every contender, and how llmkit compares with TRL at its best.

    Args:
        case: that was measured.
        runs: steps of each contender.
        about: settings.
        load: of other processes.
        limits: what the machine can do at most; nothing where that was not measured.

    Raises:
        BenchError: losses differ, so that speeds do not compare.
    """
    own = runs[OURS]
    differences = {name: loss_difference(own, other) for name, other in runs.items() if name != OURS}
    for name, difference in differences.items():
        if case.tolerance is not None and difference > case.tolerance:
            raise BenchError(
                f"{case.name}: losses of llmkit and {name} differ by {difference:.2g} in the first "
                f"{len(own.losses)} steps (at most {case.tolerance:g} is rounding): they do not train alike, and "
                f"speeds do not compare. llmkit: {_some(own.losses)}; {name}: {_some(runs[name].losses)}"
            )
    tokens = [step["num_tokens"] for step in own.steps]
    found = {name: metrics(run, tokens) for name, run in runs.items()}
    if limits:
        for one in found.values():
            one |= shares_of_limits(case, one, about["parameters"], limits)
    for name, difference in differences.items():
        if case.tolerance is not None:
            found[name]["loss_difference"] = difference
    results = [
        Result(f"train/{name}", {"case": case.name, **about}, {**values, "foreign_load": load})
        for name, values in found.items()
    ]
    if not differences:
        return Findings(results)
    return Findings(results, {"trl": compare(case.name, found[OURS], [found[name] for name in differences])})


def loss_difference(ours: Runs, theirs: Runs) -> float:
    """Greatest relative difference between losses of the same step, among the first ones."""
    pairs = zip(ours.losses, theirs.losses, strict=False)
    return max(abs(one - other) / max(abs(other), 1e-3) for one, other in pairs)


def metrics(run: Runs, tokens: list[float]) -> dict[str, Any]:
    """Medians over the steps that count.

    Args:
        tokens: of every step, which are the same for all contenders.
    """
    counted = list(zip(run.steps, tokens, strict=False))[run.first :]
    steps = [step for step, _ in counted]
    found: dict[str, Any] = {
        "tokens_per_second": statistics.median(number / step["seconds"] for step, number in counted),
        "tokens_per_cpu_second": statistics.median(number / step["cpu_seconds"] for step, number in counted),
        "seconds": statistics.median(step["seconds"] for step in steps),
        "spread": spread([step["seconds"] / number for step, number in counted]),
        "peak_memory_bytes": run.peak_memory_bytes,
        "losses": run.losses,
    }
    if all("generation_seconds" in step for step in steps):
        found["generation_seconds"] = statistics.median(step["generation_seconds"] for step in steps)
        found["training_seconds"] = statistics.median(step["seconds"] - step["generation_seconds"] for step in steps)
    return found


def shares_of_limits(
    case: Case, found: Mapping[str, Any], num_parameters: int, limits: Mapping[str, float]
) -> dict[str, float]:
    """What of the machine a step uses, by what its model needs at least.

    Model FLOPs of a token: 6 for each parameter that multiplies (the tied embedding multiplies once, as the head), and
    12 for each layer, number of the residual stream and token before it on average (arXiv:2204.02311, appendix B).
    Passes that are made twice do not count, nor do the reference model's.

    Bytes of a step: 32-bit weights read forward and backward, gradients written, and in the update weights, gradients
    and two moments read, weights and moments written.

    Args:
        case: that was measured.
        found: the contender's figures.
        num_parameters: of its model.
        limits: `gemm_gflops` of a product of matrices in the case's type, and `memory_gbps`, with as many threads.
    """
    per_token = 6 * num_parameters + 12 * case.shape.layers * case.shape.hidden * (case.prompt + case.answer) / 2
    seconds = found.get("training_seconds", found["seconds"])
    tokens = found["tokens_per_second"] * found["seconds"]
    num_flops = per_token * tokens
    num_bytes = 4 * NUM_PASSES * num_parameters
    return {
        "model_gflops_per_second": num_flops / seconds / 1e9,
        "model_flops_share": num_flops / seconds / 1e9 / limits["gemm_gflops"],
        "memory_traffic_share": num_bytes / seconds / 1e9 / limits["memory_gbps"],
    }


def compare(case: str, ours: Mapping[str, Any], theirs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Ours over the best of theirs, for each metric by itself, under names that begin with the case's."""
    return {
        f"{case} {name}": ours[name] / best(one[name] for one in theirs)
        for name, best in BEST.items()
        if all(one.get(name) for one in (ours, *theirs))
    }


def _some(losses: list[float]) -> str:
    return ", ".join(f"{loss:.5g}" for loss in losses[:4]) + ", ..."
