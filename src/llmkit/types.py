"""The nouns that every part of llmkit shares. No torch at run time: tensors appear in annotations only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["system", "user", "assistant", "tool"]
StopReason = Literal["stop", "length", "cancelled"]


class Source(NamedTuple):
    """Where a row came from: a file and a line (from 1), or a data set name and a row (from 1)."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Row:
    """One raw row of a data set, before a formatter has read it."""

    values: Mapping[str, Any]
    source: Source


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a message's content.

    Attributes:
        type: text, or a medium.
        text: of a text part.
        url: where a medium is: a path, a URL or a `data:` URI; None when the row only says that one goes here.
        weight: loss weight of this part's tokens; None leaves it to the message.
    """

    type: Literal["text", "image", "audio", "video"] = "text"
    text: str = ""
    url: str | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool by the assistant.

    Attributes:
        name: of the tool.
        arguments: JSON text, as the row has it.
        id: what the tool's answer refers to.
    """

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        content: what is said: text, or parts where there is more than one piece, a medium, or a weight for a piece.
        weight: loss weight of this turn's tokens; None leaves it to the run's `train_on` rule, 0 masks it.
        tool_calls: what the assistant asks tools to do.
        tool_call_id: which call a tool's message answers.
        name: of the speaker, or of the tool that answers.
        reasoning: what the assistant thinks before it speaks, apart from `content`.
    """

    role: Role
    content: str | tuple[Part, ...]
    weight: float | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """The content's text, parts joined without anything between them."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts."""
        return (Part(text=self.content),) if isinstance(self.content, str) else self.content

    @property
    def media(self) -> tuple[Part, ...]:
        """The parts that are not text."""
        return () if isinstance(self.content, str) else tuple(part for part in self.content if part.type != "text")


@dataclass(frozen=True, slots=True)
class Record:
    """One example in canonical form: a conversation, plain text, or tokens.

    Attributes:
        messages: the conversation; for a preference pair or an RL prompt, the part before the answer.
        source: where it came from, for error messages and reports.
        chosen: the preferred continuation of `messages`, when the record is a preference pair.
        rejected: the dispreferred continuation.
        answer: the reference answer that rewards compare with, as text.
        extra: every other column, passed on to rewards and workflows untouched.
        tools: JSON text of the list of tool schemas that the assistant may use. Text, because a table's columns would
            give every schema the keys of all others.
        label: whether the answer at the end of `messages` is a good one (KTO); None when the row does not say.
        text: plain text to train on as it is, without a chat template, in place of `messages`.
        tokens: token ids with loss weights, of a row that was tokenized before, in place of `messages`.
    """

    messages: tuple[Message, ...]
    source: Source
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    answer: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    tools: str | None = None
    label: bool | None = None
    text: str | None = None
    tokens: Sample | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A record as token ids.

    Attributes:
        token_ids: T ids.
        loss_weights: T weights; `loss_weights[t]` belongs to predicting `token_ids[t]` from what is before it.
        source: where it came from.
    """

    token_ids: list[int]
    loss_weights: list[float]
    source: Source


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two answers to one prompt as token ids; both samples begin with the same prompt."""

    chosen: Sample
    rejected: Sample


@dataclass(frozen=True, slots=True)
class Structure:
    """What a completion must look like.

    Attributes:
        kind: `json` any JSON value, `json_schema` one that fits the schema in `text`, `regex`, `grammar` in the EBNF
            of GBNF, `choice` one of the strings in the JSON list `text`.
        text: the schema, expression, grammar or choices; empty for `json`.
    """

    kind: Literal["json", "json_schema", "regex", "grammar", "choice"]
    text: str = ""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How an engine draws tokens. What is left at its default changes nothing.

    The order is: allowed and banned tokens, structure, penalties, logit bias, temperature, top-k, top-p, min-p.

    Attributes:
        max_new_tokens: most tokens to draw, the stop token included.
        temperature: 0 is greedy.
        top_k: 0 keeps every token.
        top_p: 1 keeps every token.
        stop_token_ids: drawing one of these ends the completion; it is part of `Completion.token_ids`.
        seed: makes the draw repeatable, whatever else is in the engine's batch; None draws a fresh one.
        min_p: tokens less likely than this times the likeliest one are left out (arXiv:2407.01082); 0 keeps all.
        repetition_penalty: divides positive logits, and multiplies negative ones, of tokens in prompt or completion
            (arXiv:1909.05858); 1 is off.
        presence_penalty: taken from the logits of tokens in the completion.
        frequency_penalty: taken from the logits of tokens in the completion, as often as they are there.
        logit_bias: (token id, what is added to its logit).
        allowed_token_ids: nothing else can be drawn, stop tokens excepted; None allows all.
        banned_token_ids: never drawn.
        min_new_tokens: stop tokens and stop strings count only after so many tokens.
        stop: strings that end the completion; the text ends before them, the tokens with the one that completed them.
        structure: what the completion must look like.
        logprob_kind: of which distribution the log-probabilities are: `raw` the model's own, `scaled` after temperature
            and nothing else (what training compares with), `processed` the one that was drawn from, `any` the one that
            the engine has at hand or none (None in a stream, 0 in a `Completion`), for callers who look at none.
        num_top_logprobs: likeliest tokens to report at each place.
        prompt_logprobs: report the log-probabilities of the prompt's tokens too.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    banned_token_ids: tuple[int, ...] = ()
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    structure: Structure | None = None
    logprob_kind: Literal["raw", "scaled", "processed", "any"] = "scaled"
    num_top_logprobs: int = 0
    prompt_logprobs: bool = False

    @property
    def wants_logprobs(self) -> bool:
        """Whether anyone looks at the log-probabilities of drawn tokens."""
        return self.logprob_kind != "any" or self.num_top_logprobs > 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine sampled after one prompt.

    Attributes:
        token_ids: N sampled ids, the stop token included when there is one.
        logprobs: N log-probabilities, nats, of the distribution that `SamplingParams.logprob_kind` names; 0 where
            nobody asked for any.
        versions: N weight versions, one per token.
        stop_reason: `stop` a stop token or string was drawn, `length` the limit was reached, `cancelled` the caller, a
            deadline or a pause ended it.
    """

    token_ids: list[int]
    logprobs: list[float]
    versions: list[int]
    stop_reason: StopReason


@dataclass(slots=True)
class Rollout:
    """A prompt, what the policy made of it, and its reward. One or many turns.

    Attributes:
        token_ids: T ids, prompt and sampled tokens in the order that the model saw them.
        loss_mask: T flags, 1 where the policy sampled the token, 0 where it was given (prompt, tool results).
        logprobs: T sampling log-probabilities, 0 where `loss_mask` is 0.
        versions: T weight versions, -1 where `loss_mask` is 0.
        stop_reason: how the last turn ended.
        record: the record it answers.
        group_id: rollouts of one prompt share it.
        prompt: the first prompt as text, special tokens included.
        completion: everything that was sampled, as text.
        reward: what it is worth; None until it was scored, and when a reward failed.
        rewards: what each reward says, by name, before weights and `discount`.
        reward_error: why it has no reward, when one failed.
        turns: the text of each sampled turn, where there are several; empty stands for `completion` alone.
        discount: what the workflow multiplies the reward by.
    """

    token_ids: list[int]
    loss_mask: list[int]
    logprobs: list[float]
    versions: list[int]
    stop_reason: StopReason
    record: Record
    group_id: int
    prompt: str
    completion: str
    reward: float | None = None
    rewards: dict[str, float] = field(default_factory=dict[str, float])
    reward_error: str | None = None
    turns: tuple[str, ...] = ()
    discount: float = 1.0

    @property
    def last_turn(self) -> str:
        """What the policy said last."""
        return self.turns[-1] if self.turns else self.completion

    @property
    def completion_length(self) -> int:
        """Number of sampled tokens."""
        return sum(self.loss_mask)


@dataclass(slots=True)
class Batch:
    """B sequences laid end to end without padding, T tokens in all.

    Attributes:
        token_ids: [T] int64.
        position_ids: [T] int64, from 0 in each sequence; after a prefix they go on from it.
        sequence_ends: B exclusive ends; sequence b owns the tokens `[sequence_ends[b - 1], sequence_ends[b])`.
        loss_weights: [T] float32, weight of predicting token t; the first token of a sequence without a prefix has 0.
        prefixes: for each sequence, the tokens `[start, end)` that come before its own: the first ones of the nearest
            earlier sequence that has no prefix itself, none of them with a loss weight. (0, 0) where there are none;
            None when no sequence has any.
        sources: where the sequences came from, to name them when something is wrong with them.
    """

    token_ids: Tensor
    position_ids: Tensor
    sequence_ends: list[int]
    loss_weights: Tensor
    prefixes: list[tuple[int, int]] | None = None
    sources: Sequence[Source] = ()
