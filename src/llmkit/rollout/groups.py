"""Sample groups of rollouts."""

import dataclasses
import hashlib
from collections.abc import Sequence

from llmkit.data.codec import TextCodec
from llmkit.engines.inference.contract import InferenceEngine
from llmkit.rollout.contract import Workflow
from llmkit.rollout.tasks import Tasks
from llmkit.types import Record, Rollout, SamplingParams


async def sample_groups(
    records: Sequence[Record],
    group_size: int,
    *,
    workflow: Workflow,
    engine: InferenceEngine,
    codec: TextCodec,
    sampling: SamplingParams,
    seed: str,
    places: Sequence[tuple[int, int]] | None = None,
) -> list[Rollout]:
    """`group_size` unscored rollouts of each record, side by side; group g holds those of `records[g]`.

    When one fails, the others are cancelled and its error is raised.

    Args:
        seed: with a rollout's place it fixes what is drawn, whatever else the engine is doing.
        places: group and member of the rollouts to sample; None samples all of them.
    """
    if places is None:
        places = every_place(len(records), group_size)
    async with Tasks() as group:
        tasks = [
            group.create_task(
                workflow.run(
                    records[index],
                    engine,
                    codec,
                    dataclasses.replace(sampling, seed=rollout_seed(seed, index, member)),
                    group_id=index,
                )
            )
            for index, member in places
        ]
    return [task.result() for task in tasks]


def every_place(num_groups: int, group_size: int) -> list[tuple[int, int]]:
    """Group and member of every rollout, in order."""
    return [(index, member) for index in range(num_groups) for member in range(group_size)]


def rollout_seed(seed: str, index: int, member: int) -> int:
    """A 64-bit number that belongs to one rollout alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{index}:{member}".encode(), digest_size=8).digest())
