"""Scores rollouts with everything that a run's reward section asks for."""

from collections.abc import Sequence
from typing import Any

from llmkit.config.scoring import ScoringConfig
from llmkit.config.section import PluginSection
from llmkit.errors import EngineError, LLMKitError, RewardError
from llmkit.rollout.contract import Reward
from llmkit.rollout.score import described, score
from llmkit.rollout.scoring.child_process import ChildDiedError
from llmkit.rollout.scoring.children import Children, ChildTimeoutError
from llmkit.rollout.scoring.combining import combine
from llmkit.rollout.scoring.parts import Part, packed_parts, parts_of
from llmkit.rollout.tasks import Tasks
from llmkit.types import Rollout


class Scorer:
    """Rewards of a run, some in this process and some in children; used from one event loop.

    First `score` each share of the rollouts, where they were made; then `combine` all of them, whole groups together.
    """

    def __init__(self, reward: PluginSection, config: ScoringConfig) -> None:
        """Find the rewards and build those that run in this process.

        Raises:
            LLMKitError: one is not there, or cannot be built.
        """
        parts = parts_of(reward)
        self._parts, self._normalize, self._config = parts.rewards, parts.normalize, config
        elsewhere = [part for part in self._parts if not part.is_in_process]
        # One that answers most rollouts at once is light, and what is wrong with it shows here instead of in a child.
        self._here: dict[str, Reward] = {
            part.name: part.build() for part in self._parts if part.is_in_process or part.quick is not None
        }
        self._needs_children = any(part.quick is None for part in elsewhere)
        self._children = Children(
            "llmkit.rollout.scoring.in_child:open_rewards",
            (packed_parts(elsewhere),),
            num_workers=config.num_workers,
            timeout_seconds=config.timeout_seconds,
            max_memory_mib=config.max_memory_mib,
        )

    async def start(self) -> None:
        """Make sure that the rewards work, before anything is sampled.

        Raises:
            LLMKitError: a reward cannot be built.
        """
        for reward in self._here.values():
            opening: Any = getattr(reward, "open", None)
            if opening is not None:
                await opening()
        if self._needs_children:
            try:
                await self._children.start()
            except (ChildDiedError, ChildTimeoutError) as error:
                names = ", ".join(f"'{part.name}'" for part in self._parts)
                raise RewardError(f"A child process for the reward {names} {error}") from error

    @property
    def names(self) -> list[str]:
        """Of the rewards."""
        return [part.name for part in self._parts]

    @property
    def compares_groups(self) -> bool:
        """Whether a rollout's reward depends on those of its group, so that `combine` needs whole groups."""
        return self._normalize

    async def score(self, rollouts: Sequence[Rollout]) -> None:
        """Set `rewards` of every rollout, side by side; `reward_error` where one fails.

        Raises:
            LLMKitError: a reward cannot work at all, since something is not installed or set wrongly.
        """
        async with Tasks() as group:
            for rollout in rollouts:
                for part in self._parts:
                    group.create_task(self._score(part, rollout))

    def combine(self, rollouts: Sequence[Rollout]) -> None:
        """Set `reward` of every rollout whose rewards are known; those of a group must be here together.

        Raises:
            RewardError: more rewards failed than the run allows; has the first error.
        """
        errors = [rollout.reward_error for rollout in rollouts if rollout.reward_error is not None]
        if errors and (len(errors) > self._config.max_error_fraction * len(rollouts) or len(errors) == len(rollouts)):
            raise RewardError(
                f"{errors[0]} ({len(errors)} of {len(rollouts)} rollouts could not be scored, more than "
                f"scoring.max_error_fraction={self._config.max_error_fraction:g} allows)"
                if len(errors) < len(rollouts)
                else f"{errors[0]} (not one of {len(rollouts)} rollouts could be scored)"
            )
        combine(rollouts, self._parts, normalize=self._normalize)

    async def score_all(self, rollouts: Sequence[Rollout]) -> None:
        """`score` and `combine`, where all rollouts are here.

        Raises:
            LLMKitError: as both of them.
        """
        await self.score(rollouts)
        self.combine(rollouts)

    async def close(self) -> None:
        """End the child processes and what rewards keep open."""
        await self._children.close()
        for reward in self._here.values():
            close: Any = getattr(reward, "close", None)
            if close is not None:
                await close()

    async def _score(self, part: Part, rollout: Rollout) -> None:
        try:
            rollout.rewards[part.name] = await self._value(part, rollout)
        except (RewardError, EngineError) as error:
            rollout.reward_error = rollout.reward_error or str(error)
        except ChildDiedError as error:
            rollout.reward_error = rollout.reward_error or described(part.name, rollout, str(error))
        except ChildTimeoutError as error:
            if self._config.timeout_reward is not None:
                rollout.rewards[part.name] = self._config.timeout_reward
            else:
                what = f"{error} (scoring.timeout_seconds)"
                rollout.reward_error = rollout.reward_error or described(part.name, rollout, what)

    async def _value(self, part: Part, rollout: Rollout) -> float:
        if part.is_in_process:
            return await score(self._here[part.name], rollout, part.name)
        try:
            quick = part.quick(part.config, rollout) if part.quick is not None else None
            if quick is not None:
                return quick
            return await self._children.call(part.name, rollout)
        except (LLMKitError, ChildDiedError, ChildTimeoutError):
            raise
        except Exception as error:
            # `sys.exit()` in a reward, or an exception that cannot be pickled.
            raise RewardError(described(part.name, rollout, f"raised {error}")) from error
