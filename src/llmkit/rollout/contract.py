"""What workflow and reward plugins promise."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from llmkit.types import Record, Rollout, SamplingParams

if TYPE_CHECKING:
    from llmkit.data.codec import TextCodec
    from llmkit.engines.inference.contract import InferenceEngine


class Reward(Protocol):
    """Scores a finished rollout. `build(config) -> Reward` makes one; it may also be an `async` callable.

    A run calls it in a child process, and kills that when it takes longer than `scoring.timeout_seconds`: it may loop,
    crash or eat memory, and costs one rollout. A plugin's front may have, besides `Config` and `build`:

    - `IN_PROCESS = True`: call it in the run's own process; it is quick, or `async` with deadlines of its own. If it
      has `async` methods `open` and `close`, they are called before the first rollout and at the end.
    - `quick(config, rollout) -> float | None`: a reward that is certain without slow or dangerous work; None leaves the
      rollout to the child process.
    """

    def __call__(self, rollout: Rollout) -> float | Awaitable[float]:
        """How good `rollout.completion` is as an answer to `rollout.record`: a finite number, more is better.

        Whether an answer is right or wrong is told by 1 and 0 exactly; `eval_accuracy` counts rewards of 1.
        """
        ...


class Workflow(Protocol):
    """Makes one rollout of one record. `build(config) -> Workflow` makes one.

    A workflow may also have `async open(codec)`, which is called once before the first rollout and refuses what cannot
    work, such as a chat template that rewrites earlier turns; and `async close()`, called at the end. Prompt and
    everything after it together have at most as many tokens as the record's own prompt and `sampling.max_new_tokens`.
    """

    async def run(
        self, record: Record, engine: "InferenceEngine", codec: "TextCodec", sampling: SamplingParams, group_id: int
    ) -> Rollout:
        """Prompt the engine, in one or several turns, and return what was sampled, token by token, unscored."""
        ...
