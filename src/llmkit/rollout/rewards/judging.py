"""A language model that grades rollouts."""

import asyncio
import json
import re
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmkit import plugins
from llmkit.data.opening import open_codec
from llmkit.data.turns import prompt_messages
from llmkit.engines.inference.contract import EngineContext, InferenceEngine
from llmkit.errors import ConfigError, RewardError
from llmkit.rollout.groups import rollout_seed
from llmkit.types import Completion, Message, Rollout, SamplingParams, Structure

if TYPE_CHECKING:
    from llmkit.rollout.rewards.judge import Config

SHOWN_CHARACTERS = 80


class Judge:
    """The reward. The same rollout gets the same verdicts, as far as the engine keeps to seeds."""

    def __init__(self, config: "Config") -> None:
        try:
            self._pattern = re.compile(config.pattern)
        except re.error as error:
            raise ConfigError(f"reward.pattern={config.pattern!r} is no regular expression: {error}") from None
        if not self._pattern.groups:
            raise ConfigError(f"reward.pattern={config.pattern!r} has no group for the score: put (...) around it")
        self._config = config
        self._codec = open_codec(config.model)
        self._engine: InferenceEngine | None = None
        self._slots = asyncio.Semaphore(config.max_running)

    async def __call__(self, rollout: Rollout) -> float:
        """The mean of the votes, from 0 to 1.

        Raises:
            RewardError: no vote has a score, or the judge took too long.
            EngineError: the judge's engine failed.
        """
        async with self._slots:
            try:
                async with asyncio.timeout(self._config.timeout_seconds):
                    verdicts = await self._verdicts(rollout)
            except TimeoutError:
                seconds = self._config.timeout_seconds
                raise RewardError(f"{rollout.record.source}: the judge took longer than {seconds:g} s") from None
        scores = [score for verdict in verdicts if (score := self._score(verdict)) is not None]
        if not scores:
            shown = verdicts[0][:SHOWN_CHARACTERS]
            raise RewardError(
                f"{rollout.record.source}: none of the judge's {len(verdicts)} verdicts has a score from "
                f"{self._config.lowest} to {self._config.highest}; the first begins with {shown!r}"
            )
        return statistics.fmean(scores)

    async def close(self) -> None:
        """End the judge's engine."""
        if self._engine is not None:
            await self._engine.close()

    async def _verdicts(self, rollout: Rollout) -> list[str]:
        prompt_ids = self._codec.prompt_ids((Message("user", self._question(rollout)),), rollout.record.source)
        sampling = SamplingParams(
            max_new_tokens=self._config.max_new_tokens,
            temperature=self._config.temperature,
            stop_token_ids=self._codec.stop_token_ids,
            structure=Structure("json_schema", json.dumps(_schema(self._config))) if self._config.structured else None,
        )
        engine, about = self._opened(), f"{rollout.record.source}:{rollout.completion}"
        completions: list[Completion] = await asyncio.gather(
            *(
                engine.generate(prompt_ids, replace(sampling, seed=rollout_seed(about, 0, vote)))
                for vote in range(self._config.votes)
            )
        )
        return [self._codec.decode(one.token_ids, skip_special_tokens=True) for one in completions]

    def _question(self, rollout: Rollout) -> str:
        answer = rollout.record.answer or ""
        values = {
            "question": "\n\n".join(message.text for message in prompt_messages(rollout.record)),
            "completion": rollout.last_turn,
            "answer": answer,
            "reference": f"Reference answer:\n{answer}\n\n" if answer else "",
            "rubric": self._config.rubric,
            "form": _form(self._config),
            "lowest": self._config.lowest,
            "highest": self._config.highest,
        }
        # One pass, so that braces in a completion stay what they are.
        return re.sub(r"\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), self._config.prompt)

    def _score(self, verdict: str) -> float | None:
        """From 0 to 1; None for a verdict without a score, or with one outside the range."""
        try:
            number = float(json.loads(verdict)["score"]) if self._config.structured else self._last_match(verdict)
        except (LookupError, ValueError, TypeError):
            return None
        lowest, highest = self._config.lowest, self._config.highest
        return (number - lowest) / (highest - lowest) if lowest <= number <= highest else None

    def _last_match(self, verdict: str) -> float:
        last = self._pattern.findall(verdict)[-1]
        return float(last if isinstance(last, str) else last[0])

    def _opened(self) -> InferenceEngine:
        if self._engine is not None:
            return self._engine
        section: Any = self._config.engine
        context = EngineContext(self._config.model, self._config.device, tokenizer=self._codec.tokenizer)
        engine: InferenceEngine = plugins.load("engines", section.name).build(section, context)
        self._engine = engine
        return engine


def _form(config: "Config") -> str:
    """How the judge is told to write its score."""
    number = f"a whole number from {config.lowest} to {config.highest}"
    if not config.structured:
        return f"end with a line `Score: N`, where N is {number}"
    reasoning = "`reasoning`, a short text, and " if config.reasoning_characters else ""
    return f"answer with a JSON object that has {reasoning}`score`, {number}"


def _schema(config: "Config") -> dict[str, Any]:
    """What a structured verdict must fit; the reasoning comes first, so that the score follows from it."""
    properties: dict[str, Any] = {}
    if config.reasoning_characters:
        properties["reasoning"] = {"type": "string", "maxLength": config.reasoning_characters}
    properties["score"] = {"type": "integer", "minimum": config.lowest, "maximum": config.highest}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
