"""Structures made ready to mask tokens with: in worker threads, within a deadline, each once."""

import asyncio
import json
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from llmkit.engines.inference.sampling.schemas import source_of
from llmkit.errors import RequestError
from llmkit.types import Structure

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from transformers import PreTrainedTokenizerBase

MAX_KEPT = 256
"""Structures that stay compiled; the one unused for longest goes first."""
NUM_WORKERS = 4
MAX_ITEMS_PER_STEP = 10_000
"""Of the parser, for the mask of one token: a grammar that needs more would hold up the whole batch."""


class CompiledStructure:
    """A structure for one vocabulary.

    Attributes:
        num_tokens: size of the vocabulary.
        misread: tokens that must not be drawn, as their text is not known for certain.
    """

    def __init__(self, matcher: "LLMatcher", tokenizer: "LLTokenizer", misread: list[int]) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self.num_tokens: int = tokenizer.vocab_size
        self.misread = misread

    def matcher(self) -> "LLMatcher":
        """A new matcher at the beginning of the structure."""
        return self._matcher.deep_copy()

    def is_special(self, token_id: int) -> bool:
        """Whether a token stands for no text."""
        return token_id >= self.num_tokens or self._tokenizer.is_special_token(token_id)


class StructureCompiler:
    """Compiles with llguidance, which leaves other threads alone while it does."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase | None", vocab_size: int, timeout_seconds: float) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._kept: OrderedDict[Structure, Future[CompiledStructure]] = OrderedDict()
        self._workers: ThreadPoolExecutor | None = None
        self._vocabulary: Future[LLTokenizer] | None = None

    def get(self, structure: Structure) -> CompiledStructure:
        """The compiled structure; waits for it.

        Raises:
            RequestError: it makes no sense, or takes too long.
        """
        try:
            return self._future(structure).result(self._timeout_seconds)
        except TimeoutError:
            raise self._too_slow(structure) from None

    async def prepare(self, structure: Structure) -> None:
        """Wait for the structure without blocking the event loop; errors as of `get`."""
        future = asyncio.wrap_future(self._future(structure))
        try:
            await asyncio.wait_for(asyncio.shield(future), self._timeout_seconds)
        except TimeoutError:
            raise self._too_slow(structure) from None

    def _future(self, structure: Structure) -> Future[CompiledStructure]:
        with self._lock:
            if structure not in self._kept:
                if self._workers is None:
                    self._workers = ThreadPoolExecutor(NUM_WORKERS, thread_name_prefix="llmkit-structures")
                    self._vocabulary = self._workers.submit(self._read_vocabulary)
                self._kept[structure] = self._workers.submit(self._compile, structure)
            self._kept.move_to_end(structure)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
            return self._kept[structure]

    def _compile(self, structure: Structure) -> CompiledStructure:
        assert self._vocabulary is not None
        tokenizer = self._vocabulary.result()
        from llguidance import LLMatcher, LLParserLimits

        source = source_of(structure)
        # Messages with the parser's state are long and may hold what others wrote.
        limits = LLParserLimits(verbose_errors=False, step_max_items=MAX_ITEMS_PER_STEP)
        matcher = LLMatcher(tokenizer, source.text, log_level=0, limits=limits)
        trial = matcher.deep_copy()
        if not trial.is_error():
            trial.compute_bitmask()  # some of what is too large shows here first
        if trial.is_error():
            raise RequestError(source.explain(trial.get_error()))
        return CompiledStructure(matcher, tokenizer, _misread(self._tokenizer))

    def _read_vocabulary(self) -> "LLTokenizer":
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise RequestError("structured output needs llguidance: pip install 'llmkit[structured]'") from error
        tokenizer: Any = self._tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise RequestError("structured output needs a fast tokenizer (tokenizer.json), which this model has not")
        size = max(self._vocab_size, len(tokenizer))
        try:
            return LLTokenizer(_description(tokenizer), n_vocab=size, eos_token=tokenizer.eos_token_id)
        except ValueError as error:
            raise RequestError(f"structured output cannot read this model's tokenizer: {error}") from error

    def _too_slow(self, structure: Structure) -> RequestError:
        return RequestError(
            f"structure ({structure.kind}): not compiled within {self._timeout_seconds:g} seconds; make it simpler"
        )


def _description(tokenizer: Any) -> str:
    """A fast tokenizer as JSON, in a form that llguidance knows: it takes SentencePiece's spaces as a sequence only."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description["truncation"] = description["padding"] = None
    decoder = description["decoder"] or {}
    if decoder.get("type") in ("Metaspace", "Replace"):
        replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
        description["decoder"] = {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return json.dumps(description)


def _misread(tokenizer: Any) -> list[int]:
    """Added tokens whose text is not what it says on them: a normalizer has changed it, which llguidance overlooks."""
    added = tokenizer.added_tokens_decoder.items()
    return [token_id for token_id, token in added if tokenizer.convert_ids_to_tokens(token_id) != token.content]
