"""A conversation that grows by given and by sampled tokens."""

from llmkit.data.codec import TextCodec
from llmkit.data.turns import prompt_messages
from llmkit.engines.inference.contract import InferenceEngine
from llmkit.types import Message, Record, Rollout, SamplingParams, StopReason


class Conversation:
    """Token ids with a flag, a log-probability and a version each: what a rollout is made of."""

    def __init__(self, record: Record, codec: TextCodec) -> None:
        self._record = record
        self._codec = codec
        self._token_ids = codec.prompt_ids(prompt_messages(record), record.source, record.tools)
        self._prompt = codec.decode(self._token_ids)
        self._loss_mask = [0] * len(self._token_ids)
        self._logprobs = [0.0] * len(self._token_ids)
        self._versions = [-1] * len(self._token_ids)
        self._answers: list[str] = []
        self._stop_reason: StopReason = "stop"

    async def answer(self, engine: InferenceEngine, sampling: SamplingParams) -> None:
        """Let the engine go on; what it draws is trained."""
        completion = await engine.generate(self._token_ids, sampling)
        self._token_ids = [*self._token_ids, *completion.token_ids]
        self._loss_mask += [1] * len(completion.token_ids)
        self._logprobs += completion.logprobs
        self._versions += completion.versions
        self._answers.append(self._codec.decode(completion.token_ids, skip_special_tokens=True))
        self._stop_reason = completion.stop_reason

    def ask(self, text: str) -> None:
        """Add a user message; given tokens are not trained.

        The tokens so far stay as they were drawn: only what the template puts after an answer is added.
        """
        end = Message("assistant", self._answers[-1])
        before = self._codec.conversation_ids((*prompt_messages(self._record), end))
        after = self._codec.prompt_ids((*prompt_messages(self._record), end, Message("user", text)))
        stop = max((index for index, token in enumerate(before) if token in self._codec.stop_token_ids), default=0)
        given = after[stop + 1 :]
        self._token_ids = [*self._token_ids, *given]
        self._loss_mask += [0] * len(given)
        self._logprobs += [0.0] * len(given)
        self._versions += [-1] * len(given)

    def rollout(self, group_id: int) -> Rollout:
        """Everything that was said."""
        return Rollout(
            token_ids=self._token_ids,
            loss_mask=self._loss_mask,
            logprobs=self._logprobs,
            versions=self._versions,
            stop_reason=self._stop_reason,
            record=self._record,
            group_id=group_id,
            prompt=self._prompt,
            completion="\n".join(self._answers),
        )
