"""What a command line says about a run beside its configuration."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Invocation:
    """How a training command was called.

    Attributes:
        name: start of a new run directory's name: the preset's last word, or the algorithm.
        resume: go on from the newest checkpoint of the run directory.
        dry_run: resolve, validate and look at a sample; train nothing.
        profile_steps: steps to profile; 0 profiles none.
        json: standard output gets one JSON document, so nothing else may be printed there.
    """

    name: str
    resume: bool = False
    dry_run: bool = False
    json: bool = False
    profile_steps: int = 0
