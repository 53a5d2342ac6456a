"""A request inside the engine, and each of its completions."""

from collections.abc import Callable
from dataclasses import dataclass, field

from llmkit.engines.inference.contract import Delta, GenerationRequest, TokenScores
from llmkit.engines.inference.native.block_pool import chain_key
from llmkit.engines.inference.native.runner import BLOCK_SIZE
from llmkit.engines.inference.sampling.batch import SamplerState
from llmkit.engines.inference.text_stream import NoText, TextStream
from llmkit.types import Completion, SamplingParams, StopReason

Deliver = Callable[[Delta | Exception], None]


@dataclass(eq=False, slots=True)
class Request:
    """What was asked for and where its results go.

    Attributes:
        asked: as it came.
        deliver: takes deltas, or the error that ended the request; called in the engine's thread.
        streams: whether deltas are wanted as they come; otherwise one for each completion, at its end.
        rank: lower goes first.
        adapter: number of the adapter in the engine, 0 for the model itself.
        deadline: on the monotonic clock, seconds; None when there is none.
        sequences: completions that have not ended.
    """

    asked: GenerationRequest
    deliver: Deliver
    streams: bool
    rank: tuple[float, int] = (0.0, 0)
    adapter: int = 0
    deadline: float | None = None
    sequences: list["Sequence"] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Sequence:
    """One completion on its way: what was drawn, and where its keys and values lie.

    Attributes:
        token_ids: the prompt's tokens, then those drawn.
        num_computed: tokens whose keys and values are in the cache.
        blocks: where they are, in order.
        keys: names of the full blocks, as far as they were needed.
        root: what `keys` begins with; None when blocks must not be found by others, as they hold mixed weights.
        followers: completions of the same prompt that wait for this one to compute it.
        admitted: whether its turn has come; it stays so when it has to give up its blocks for others.
        num_cached: tokens of the prompt that were in the cache when it began.
        prompt_key: the prompt, for comparing it.
        scores: one per drawn token.
        prompt_scores: one per token of the prompt, as far as they are known.
        num_delivered: drawn tokens that were handed on.
    """

    request: Request
    index: int
    sampling: SamplingParams
    state: SamplerState
    text: TextStream | NoText
    token_ids: list[int]
    num_prompt: int
    num_computed: int = 0
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    root: bytes | None = None
    followers: list["Sequence"] = field(default_factory=list)
    admitted: bool = False
    num_cached: int | None = None
    prompt_key: tuple[int, ...] | None = None
    scores: list[TokenScores] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    prompt_scores: list[TokenScores] = field(default_factory=list)
    num_delivered: int = 0
    stop_reason: StopReason | None = None

    @property
    def rank(self) -> tuple[float, int]:
        """Lower goes first."""
        return self.request.rank

    @property
    def num_drawn(self) -> int:
        """Tokens drawn."""
        return len(self.token_ids) - self.num_prompt

    @property
    def num_missing(self) -> int:
        """Tokens that go through the model before the next one is drawn."""
        return len(self.token_ids) - self.num_computed

    @property
    def scores_prompt(self) -> bool:
        """Whether log-probabilities of the prompt are still to be found."""
        return self.sampling.prompt_logprobs and self.index == 0 and len(self.prompt_scores) < self.num_prompt

    @property
    def twin_key(self) -> tuple[object, ...] | None:
        """Sequences of equal keys can share the computation of their prompt; None once it has drawn."""
        if self.num_drawn or self.root is None:
            return None
        if self.prompt_key is None:
            self.prompt_key = tuple(self.token_ids)
        return (self.prompt_key, self.root, self.request if self.sampling.prompt_logprobs else None)

    def key(self, block: int) -> bytes:
        """Name of full block number `block` of the sequence; it must have a root."""
        assert self.root is not None
        while len(self.keys) <= block:
            start = len(self.keys) * BLOCK_SIZE
            before = self.keys[-1] if self.keys else self.root
            self.keys.append(chain_key(before, self.token_ids[start : start + BLOCK_SIZE]))
        return self.keys[block]

    def lose_cache(self, root: bytes | None) -> None:
        """Compute everything again; keys are named anew when the root is another one."""
        if root != self.root:
            self.keys.clear()
        self.root = root
        self.num_computed = 0
        self.blocks = []

    def completion(self) -> Completion:
        """What was drawn."""
        drawn = self.token_ids[self.num_prompt :]
        return Completion(
            drawn, [score.logprob or 0.0 for score in self.scores], self.versions, self.stop_reason or "cancelled"
        )
