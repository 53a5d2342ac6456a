"""A classification head that scores conversations in this process."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForSequenceClassification

from llmkit.config.schema import ModelConfig
from llmkit.data.opening import open_codec
from llmkit.data.turns import prompt_messages
from llmkit.errors import ModelError
from llmkit.types import Message, Rollout

if TYPE_CHECKING:
    from llmkit.rollout.rewards.reward_model import Config


class RewardHead:
    """The reward. Rollouts that wait while a batch is computed make up the next one."""

    def __init__(self, config: "Config") -> None:
        assert config.path is not None
        model = ModelConfig.model_validate({"path": config.path, "chat_template": config.chat_template})
        self._codec = open_codec(model)
        try:
            head: Any = AutoModelForSequenceClassification.from_pretrained(config.path, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ModelError(f"reward.path={config.path}: {error}") from None
        if head.config.num_labels != 1:
            raise ModelError(f"reward.path={config.path} has {head.config.num_labels} labels; a reward model has one")
        chosen = config.device.device
        if chosen == "auto":
            chosen = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any = head.eval().to(chosen)
        self._config = config
        self._computing = asyncio.Lock()
        self._waiting: list[tuple[list[int], asyncio.Future[float]]] = []

    async def __call__(self, rollout: Rollout) -> float:
        """The head's value at the conversation's last token."""
        messages = (*prompt_messages(rollout.record), Message("assistant", rollout.last_turn))
        token_ids = self._codec.conversation_ids(messages, rollout.record.source)[-self._config.max_length :]
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((token_ids, future))
        async with self._computing:
            while not future.done():
                await self._next_batch()
        return future.result()

    async def _next_batch(self) -> None:
        size = self._config.batch_size
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        try:
            values = await asyncio.to_thread(self._values, [token_ids for token_ids, _ in batch])
        except BaseException:
            # Those who wait for this batch compute it again, and see the error themselves.
            self._waiting = [*batch, *self._waiting]
            raise
        for (_, future), value in zip(batch, values, strict=True):
            if not future.done():
                future.set_result(value)

    def _values(self, rows: Sequence[Sequence[int]]) -> list[float]:
        width = max(map(len, rows))
        # Padding is behind the text, where causal attention does not see it; the head is read at the last real token.
        padding = self._model.config.pad_token_id
        if padding is None:
            return [value for row in rows for value in self._logits(torch.tensor([list(row)]), None)]
        ids = torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return self._logits(ids, mask)

    def _logits(self, ids: torch.Tensor, mask: torch.Tensor | None) -> list[float]:
        device = self._model.device
        with torch.inference_mode():
            found = self._model(input_ids=ids.to(device), attention_mask=None if mask is None else mask.to(device))
        return found.logits[:, 0].float().tolist()
