"""Answers to held-out questions, sampled from the model in training and scored, while it learns from something else."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llmkit.config.runs import DPORun, SFTRun
from llmkit.config.schema import GenerateConfig, PromptDataConfig
from llmkit.data.encoders import PromptEncoder
from llmkit.engines.inference.contract import Demand, EngineContext
from llmkit.terminal import warn
from llmkit.train.console import print_samples
from llmkit.train.costs import Stopwatch
from llmkit.train.idle_settings import idle
from llmkit.train.inputs import Inputs
from llmkit.train.rollout_maker import RolloutMaker, open_rollout_maker
from llmkit.train.session import Session
from llmkit.types import Record, Rollout

ENGINE = "native"
"""It shares the policy's parameters, so that there is nothing to start and nothing to copy."""


class NoAnswers:
    """There are no questions, so nothing is measured and no engine is started."""

    def measure(self, step: int) -> dict[str, float]:
        """Nothing."""
        return {}


@dataclass
class Answers:
    """Everything that turns held-out questions into scored answers."""

    session: Session
    questions: Sequence[Record]
    config: GenerateConfig
    maker: RolloutMaker
    loop: asyncio.Runner

    def measure(self, step: int) -> dict[str, float]:
        """Reward, accuracy and length of an answer to each question, with the weights that the model has now.

        The random numbers are the same every time, so that evaluations compare.

        Args:
            step: that is done; 0 before training.

        Raises:
            RewardError: the reward fails; names the row.
        """
        watch = Stopwatch()
        self.session.policy.model.eval()
        rollouts = self.loop.run(self._answer(step))
        show_held_out(self.session, step, rollouts)
        return reward_metrics(rollouts) | {"answering_seconds": watch.read()}

    async def _answer(self, step: int) -> list[Rollout]:
        await self.maker.load_weights(step)
        rollouts, _ = await self.maker.make(
            self.questions,
            1,
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            seed=f"{self.session.run.seed}:eval",
        )
        return rollouts


def read_questions(run: SFTRun | DPORun, inputs: Inputs) -> list[Record]:
    """The held-out rows to answer; none when the run samples no answers.

    Raises:
        DataError: a row asks nothing, or leaves no room for an answer, and the run does not leave such rows out.
    """
    generate = run.eval.generate
    if generate.reward is None:
        settings = ("max_rows", "max_new_tokens", "temperature")
        for text in idle(generate, settings, "eval.generate.reward is unset", "eval.generate."):
            warn(text)
        return []
    overlength = "error" if run.data.overlength == "error" else "drop"
    rows = PromptDataConfig.model_validate({"max_length": inputs.max_length, "overlength": overlength})
    encoder = PromptEncoder(inputs.codec, rows, generate.max_new_tokens, "eval.generate.max_new_tokens")
    return inputs.read_held_out(encoder, generate.max_rows)


@contextmanager
def open_answers(session: Session, inputs: Inputs, questions: Sequence[Record]) -> Iterator[Answers | NoAnswers]:
    """Start what answers the questions; close it however the run ends."""
    if not questions:
        yield NoAnswers()
        return
    run = session.run
    assert isinstance(run, SFTRun | DPORun)
    generate = run.eval.generate
    assert generate.reward is not None
    demand = Demand(len(questions), inputs.max_length)
    context = EngineContext(run.model, run.device, session.sampling_policy, demand=demand)
    with (
        asyncio.Runner() as loop,
        open_rollout_maker(
            loop,
            inputs.codec,
            context,
            engine=ENGINE,
            workflow=generate.workflow,
            reward=generate.reward,
            scoring=generate.scoring,
            refresh=session.refresh_sampling,
        ) as maker,
    ):
        yield Answers(session, questions, generate, maker, loop)


def reward_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What held-out rollouts have in common: mean reward, share of rewards of exactly 1, tokens of a completion.

    Those whose reward failed have no part in the first two.
    """
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    return {
        "eval_reward_mean": sum(rewards) / len(rewards),
        "eval_accuracy": sum(reward == 1 for reward in rewards) / len(rewards),
        "eval_completion_length_mean": sum(rollout.completion_length for rollout in rollouts) / len(rollouts),
    }


def show_held_out(session: Session, step: int, rollouts: Sequence[Rollout]) -> None:
    """Write held-out rollouts down; print some at the start and at the end."""
    session.journal.rollouts(step, rollouts, split="eval")
    if step in (0, session.total_steps):
        print_samples("Before training" if step == 0 else "After training", rollouts)
