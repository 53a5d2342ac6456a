"""What a benchmark found, and the JSON document that holds it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmkit.errors import BenchError

Ratios = dict[str, dict[str, float]]
"""For each peer and metric: ours over theirs."""


@dataclass(frozen=True)
class Result:
    """The figures of one contender.

    Attributes:
        name: what ran.
        settings: what it ran on.
        metrics: what was measured, by names that end in their unit.
    """

    name: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]


@dataclass
class Findings:
    """Everything that was measured so far."""

    results: list[Result] = field(default_factory=list)
    ratios: Ratios = field(default_factory=dict)

    def add(self, other: "Findings") -> None:
        """Take in what another part found."""
        self.results += other.results
        for peer, metrics in other.ratios.items():
            self.ratios.setdefault(peer, {}).update(metrics)


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, float]:
    """Ours over theirs, for each of the metrics."""
    return {metric: ours[metric] / theirs[metric] for metric in metrics}


def check_equal(ours: str, our_digests: Sequence[str], theirs: str, their_digests: Sequence[str]) -> None:
    """Refuse to compare contenders that did not do the same work.

    Args:
        ours: name of one contender.
        our_digests: a name for each row's tokens and mask.
    Raises:
        BenchError: they differ; names the first row that does.
    """
    if len(our_digests) != len(their_digests):
        raise BenchError(f"{ours} made {len(our_digests)} rows and {theirs} {len(their_digests)}; times do not compare")
    for number, (one, other) in enumerate(zip(our_digests, their_digests, strict=True), start=1):
        if one != other:
            raise BenchError(f"row {number}: {ours} and {theirs} made different tokens or masks; times do not compare")


def document(command: str, machine: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """The JSON document of a benchmark."""
    results = [{"name": one.name, "settings": dict(one.settings), **one.metrics} for one in findings.results]
    return {"command": command, "machine": dict(machine), "results": results, "ratios": findings.ratios}
