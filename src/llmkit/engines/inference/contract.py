"""What inference engines promise: token ids in, token ids with log-probabilities out."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from llmkit.types import Completion, SamplingParams, StopReason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llmkit.config.schema import DeviceConfig, ModelConfig
    from llmkit.engines.inference.remote.contract import SharedServers
    from llmkit.models.policy import Policy

PauseMode = Literal["abort", "wait", "keep"]


@dataclass(frozen=True)
class Demand:
    """The most that will be asked for at one time.

    Attributes:
        num_completions: side by side.
        max_tokens: of a prompt and its completion together.
    """

    num_completions: int
    max_tokens: int


@dataclass(frozen=True)
class EngineContext:
    """What an engine may need to start.

    Attributes:
        model: the model to run.
        device: where and in which precision, for an engine in this process.
        policy: the model in training, for an engine that runs in this process and shares its parameters, and for what
            brings its weights to servers; None when there is no trainer.
        tokenizer: for text: stop strings and structures need it. None where only token ids are asked for.
        demand: what an engine beside a trainer has to hold, so that it leaves the rest of the memory to training; None
            where nobody knows.
        directory: of the run, where servers write their logs; None where there is no run.
        shared: servers that another process of the run has started, to be asked by this one too; None where this
            process is to start them.
        logprobs: which ones whoever asks will want, for servers that have to be started for one kind: those of the
            distribution that tokens are drawn from, or `raw` ones, the model's own.
    """

    model: "ModelConfig"
    device: "DeviceConfig"
    policy: "Policy | None" = None
    tokenizer: "PreTrainedTokenizerBase | None" = None
    demand: Demand | None = None
    directory: Path | None = None
    shared: "SharedServers | None" = None
    logprobs: Literal["raw", "processed"] = "processed"


class InferenceEngine(Protocol):
    """Samples completions. Everything is asynchronous; cancelling the awaiting task frees what it held."""

    @property
    def version(self) -> int:
        """Version of the weights that the next token is drawn with."""
        ...

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        """Sample one completion.

        Raises:
            RequestError: the prompt leaves no room in the context, or the engine cannot do what `sampling` asks for.
            EngineError: the engine failed or is closed.
        """
        ...

    async def pause(self) -> None:
        """End running requests with `stop_reason="cancelled"` and hold new ones until `resume`."""
        ...

    async def resume(self) -> None:
        """Go on after `pause`."""
        ...

    async def load_weights(self, version: int) -> None:
        """Take the policy's current weights at a step boundary; tokens drawn from now on carry `version`."""
        ...

    async def close(self) -> None:
        """End running requests and free everything. Closing twice is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt, how often and how to complete it, and on what terms.

    Attributes:
        prompt_ids: at least one token.
        sampling: completion i of a request with a seed draws with `seed + i`.
        num_completions: the prompt is computed once for all of them.
        adapter: name of a loaded adapter; None is the model itself.
        priority: lower numbers go first; a request gains on others while it waits.
        cache_salt: requests with another salt never share cached prefixes.
        timeout_seconds: after it the completions end as they are, with `stop_reason="cancelled"`.
    """

    prompt_ids: Sequence[int]
    sampling: SamplingParams
    num_completions: int = 1
    adapter: str | None = None
    priority: int = 0
    cache_salt: str = ""
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Log-probabilities at one place.

    Attributes:
        logprob: of the token that is there, nats; None for the first token of a prompt, and where nobody asked.
        top: (token id, log-probability) of the likeliest tokens, the likeliest first.
    """

    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What was added to one completion.

    Attributes:
        index: which completion of the request, from 0.
        token_ids: N new ids; may be none, when text was held back before or the completion ends.
        scores: N, one per token.
        versions: N weight versions.
        text: what the new tokens add to the text, special tokens left out: whole characters only, and nothing that may
            be the start of a stop string. Empty without a tokenizer.
        stop_reason: set in the completion's last delta.
        stop: the stop string or stop token id that ended it, if one did.
        prompt_scores: one per prompt token, in the first delta of completion 0 where asked for.
        num_cached_tokens: tokens of the prompt that came from the prefix cache, in the first delta of completion 0.
    """

    index: int
    token_ids: list[int] = field(default_factory=list[int])
    scores: list[TokenScores] = field(default_factory=list[TokenScores])
    versions: list[int] = field(default_factory=list[int])
    text: str = ""
    stop_reason: StopReason | None = None
    stop: str | int | None = None
    prompt_scores: list[TokenScores] | None = None
    num_cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How an engine is doing; counts are since it started.

    Attributes:
        num_running: completions that are being drawn.
        num_waiting: completions that wait for their turn.
        cache_use: share of the KV cache that running completions hold, 0 to 1.
        num_prompt_tokens: tokens of prompts, cached ones included.
        num_cached_tokens: tokens of prompts that the prefix cache had.
        num_generated_tokens: tokens drawn.
        num_preemptions: completions that gave up their cache for others and were computed again.
    """

    num_running: int = 0
    num_waiting: int = 0
    cache_use: float = 0.0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_preemptions: int = 0


@runtime_checkable
class ServingEngine(InferenceEngine, Protocol):
    """An engine that can stand behind a server: it streams, counts, and holds adapters."""

    @property
    def context_length(self) -> int | None:
        """Most tokens of prompt and completion together; None when there is no limit."""
        ...

    @property
    def adapters(self) -> Sequence[str]:
        """Names of the adapters that requests can ask for."""
        ...

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        """Deltas of all completions as they come; ends when each had its `stop_reason`.

        Closing the generator, or cancelling the task that reads it, frees everything the request held.

        Raises:
            RequestError: see `generate`; also an unknown adapter. Raised before the first delta.
            EngineBusyError: the queue is full. Raised before the first delta.
            EngineError: the engine failed or is closed.
        """
        ...

    async def pause(self, mode: PauseMode = "abort") -> None:
        """Hold new requests until `resume`, and running ones: `abort` ends them as cancelled, `wait` lets them end,
        `keep` holds them too, to go on at `resume`."""
        ...

    def stats(self) -> EngineStats:
        """How the engine is doing now."""
        ...

    async def load_adapter(self, name: str, path: Path) -> None:
        """Let requests ask for the adapter in a directory by a name.

        Raises:
            RequestError: there is one of this name, or it does not fit the model.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; requests that use it end first.

        Raises:
            RequestError: there is none of this name.
        """
        ...
