"""A conversation that grows by sampled and by given tokens; what was sampled stays as it was drawn."""

from collections.abc import Sequence
from dataclasses import replace

from llmkit.data.codec import TextCodec
from llmkit.data.turns import prompt_messages
from llmkit.engines.inference.contract import InferenceEngine
from llmkit.errors import DataError
from llmkit.rollout.groups import rollout_seed
from llmkit.rollout.workflows.turn_tokens import stand_in, tokens_between
from llmkit.types import Message, Record, Rollout, SamplingParams, StopReason, ToolCall


class Conversation:
    """What a rollout of several turns is made of: each token with a flag, a log-probability and a version.

    `sampling.max_new_tokens` is of all turns together, given tokens included, and so is what a workflow adds to the
    record's own prompt: the whole is never longer than a rollout of one turn.

    Attributes:
        stop_reason: how the last turn ended; `length` when there was no room for another.
        turns: text of each sampled turn.
    """

    def __init__(
        self,
        record: Record,
        codec: TextCodec,
        sampling: SamplingParams,
        *,
        messages: Sequence[Message] | None = None,
        tools: str | None = None,
    ) -> None:
        """Begin with a prompt.

        Args:
            record: what is answered.
            codec: tokenizer and chat template.
            sampling: of every turn.
            messages: in place of the record's own.
            tools: JSON text of the tool schemas to show; None shows none.
        Raises:
            DataError: what the workflow adds to the prompt leaves no room for an answer.
        """
        self._record, self._codec, self._sampling, self._tools = record, codec, sampling, tools
        own = prompt_messages(record)
        self._messages = list(own if messages is None else messages)
        self._token_ids = codec.prompt_ids(self._messages, record.source, tools)
        self._num_prompt = len(self._token_ids)
        added = self._num_prompt - len(codec.prompt_ids(own, record.source, record.tools))
        self._limit = self._num_prompt + sampling.max_new_tokens - max(0, added)
        if self._limit <= self._num_prompt:
            raise DataError(
                f"{record.source}: the workflow adds {added} tokens to this prompt, and sampling.max_new_tokens="
                f"{sampling.max_new_tokens} is for them too; raise it"
            )
        self._loss_mask = [0] * self._num_prompt
        self._logprobs = [0.0] * self._num_prompt
        self._versions = [-1] * self._num_prompt
        self._num_last = 0
        self.turns: list[str] = []
        self.stop_reason: StopReason = "stop"

    @property
    def last_turn_raw(self) -> str:
        """Text of the last sampled turn with its special tokens, the one that ends it excepted."""
        start = len(self._token_ids) - self._num_last
        ids = self._token_ids[start:]
        if ids and ids[-1] in self._codec.stop_token_ids:
            ids = ids[:-1]
        return self._codec.decode(ids)

    async def answer(self, engine: InferenceEngine, max_tokens: int | None = None) -> bool:
        """Sample a turn; whether it was finished, so that something can follow.

        Args:
            engine: what samples.
            max_tokens: of this turn; None takes all that are left.
        """
        room = self._limit - len(self._token_ids)
        seed = self._sampling.seed
        if seed is not None and self.turns:
            seed = rollout_seed(str(seed), len(self.turns), 0)
        sampling = replace(self._sampling, max_new_tokens=min(room, max_tokens or room), seed=seed)
        completion = await engine.generate(self._token_ids, sampling)
        self._num_last = len(completion.token_ids)
        self._token_ids = [*self._token_ids, *completion.token_ids]
        self._loss_mask += [1] * self._num_last
        self._logprobs += completion.logprobs
        self._versions += completion.versions
        self.turns.append(self._codec.decode(completion.token_ids, skip_special_tokens=True))
        self.stop_reason = completion.stop_reason
        return completion.stop_reason == "stop"

    def give(self, messages: Sequence[Message], calls: Sequence[ToolCall] = ()) -> bool:
        """Add what others say to the last turn; whether there is room for it and for a turn after it.

        Where there is none, nothing is added and the rollout has ended with `length`.

        Args:
            messages: feedback, or results of calls.
            calls: those of the last turn.
        Raises:
            ModelError: the chat template rewrites earlier turns.
        """
        before = (*self._messages, stand_in(calls))
        given = tokens_between(
            self._codec, before, messages, self._token_ids[-1], tools=self._tools, source=self._record.source
        )
        if len(self._token_ids) + len(given) >= self._limit:
            self.stop_reason = "length"
            return False
        self._messages = [*before, *messages]
        self._token_ids = [*self._token_ids, *given]
        self._loss_mask += [0] * len(given)
        self._logprobs += [0.0] * len(given)
        self._versions += [-1] * len(given)
        return True

    def rollout(self, group_id: int, discount: float = 1.0) -> Rollout:
        """Everything so far."""
        return Rollout(
            token_ids=list(self._token_ids),
            loss_mask=list(self._loss_mask),
            logprobs=list(self._logprobs),
            versions=list(self._versions),
            stop_reason=self.stop_reason,
            record=self._record,
            group_id=group_id,
            prompt=self._codec.decode(self._token_ids[: self._num_prompt]),
            completion="\n".join(self.turns),
            turns=tuple(self.turns),
            discount=discount,
        )
