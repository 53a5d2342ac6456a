"""A reward model behind a URL."""

import asyncio
from typing import TYPE_CHECKING, Any

from llmkit.data.turns import prompt_messages
from llmkit.errors import PluginError, RewardError
from llmkit.types import Rollout

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from llmkit.rollout.rewards.reward_model import Config

TRIES = 2
SHOWN_CHARACTERS = 200


class RewardServer:
    """The reward: one request for each rollout."""

    def __init__(self, config: "Config") -> None:
        try:
            import aiohttp
        except ModuleNotFoundError:
            raise PluginError("reward.url needs aiohttp: pip install 'llmkit[serve]'") from None
        self._timeout = aiohttp.ClientTimeout(total=config.timeout_seconds)
        self._failures: tuple[type[Exception], ...] = (aiohttp.ClientError, TimeoutError, ValueError)
        self._config = config
        self._session: ClientSession | None = None
        self._slots = asyncio.Semaphore(config.max_running)

    async def __call__(self, rollout: Rollout) -> float:
        """What the server answers.

        Raises:
            RewardError: it cannot be reached, answers too late or with an error, or without a reward.
        """
        messages = [{"role": message.role, "content": message.text} for message in prompt_messages(rollout.record)]
        body: dict[str, Any] = {"messages": [*messages, {"role": "assistant", "content": rollout.last_turn}]}
        if self._config.model is not None:
            body["model"] = self._config.model
        async with self._slots:
            answer = await self._asked(body, rollout)
        reward = reward_in(answer)
        if reward is None:
            raise RewardError(f"{self._place(rollout)}: no reward in the answer {str(answer)[:SHOWN_CHARACTERS]}")
        return reward

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _asked(self, body: dict[str, Any], rollout: Rollout) -> Any:
        for number in range(1, TRIES + 1):
            try:
                return await self._post(body)
            except self._failures as error:
                if number == TRIES:
                    what = f"{type(error).__name__}: {error}".rstrip(": ")
                    raise RewardError(f"{self._place(rollout)}: {what} ({TRIES} tries)") from None
        raise AssertionError("the last try returns or raises")

    async def _post(self, body: dict[str, Any]) -> Any:
        import aiohttp

        if self._session is None:
            key = self._config.api_key
            headers = {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}
            self._session = aiohttp.ClientSession(headers=headers, timeout=self._timeout)
        assert self._config.url is not None
        async with self._session.post(self._config.url, json=body) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}: {(await response.text())[:SHOWN_CHARACTERS]}")
            return await response.json(content_type=None)

    def _place(self, rollout: Rollout) -> str:
        return f"{rollout.record.source}: the reward model at {self._config.url}"


def reward_in(answer: Any) -> float | None:
    """The reward in a server's answer: `reward`, or what vLLM's pooling and classification endpoints put under `data`.

    Of one number for each token the last counts.
    """
    found = answer.get("reward") if isinstance(answer, dict) else None
    if found is None and isinstance(answer, dict):
        rows = answer.get("data")
        first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
        found = first.get("data", first.get("probs", first.get("score")))
    while isinstance(found, list) and found:
        found = found[-1]
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
