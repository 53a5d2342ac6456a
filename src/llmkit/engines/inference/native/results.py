"""What becomes of drawn tokens: completions grow and end, and what is new goes to who waits for it."""

from collections.abc import Callable
from dataclasses import dataclass

from llmkit.engines.inference.contract import Delta, TokenScores
from llmkit.engines.inference.native.sequences import Request, Sequence
from llmkit.errors import EngineError, LLMKitError, OutOfMemory
from llmkit.memory import asked_for, is_out_of_memory

Outbox = list[tuple[Request, Delta | Exception]]


@dataclass
class Counts:
    """What happened since the engine started."""

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0


class Results:
    """Everything in here happens in the engine's thread.

    Attributes:
        counts: of all requests.
    """

    def __init__(self, remove: Callable[[Sequence], None], flush: Callable[[Outbox], None]) -> None:
        """Args:
        remove: told each completion that has ended.
        flush: hands over what came of a step.
        """
        self.counts = Counts()
        self._remove = remove
        self._flush = flush
        self._outbox: Outbox = []

    def take(self, sequence: Sequence, token: int, scores: TokenScores, version: int) -> None:
        """Add a drawn token and see whether it is the last."""
        sequence.token_ids.append(token)
        sequence.scores.append(scores)
        sequence.versions.append(version)
        sequence.state.accept(token)
        self.counts.num_generated_tokens += 1
        if sequence.num_drawn == 1:
            self.counts.num_cached_tokens += sequence.num_cached or 0
        text, stop, _ = sequence.text.push([token])
        if stop is None and token in sequence.sampling.stop_token_ids:
            stop = token
        if stop is not None or sequence.state.ended_by_structure:
            sequence.stop_reason = "stop"
        elif sequence.num_drawn >= sequence.sampling.max_new_tokens:
            sequence.stop_reason = "length"
        if sequence.stop_reason is not None:
            self._leave(sequence)
        elif not sequence.request.streams:
            return
        if sequence.stop_reason is not None:
            text += sequence.text.finish()
        self._deliver(sequence, text, stop)

    def end(self, sequence: Sequence, *, tells: bool = True) -> None:
        """End a completion before its time."""
        if sequence.stop_reason is not None:
            return
        sequence.stop_reason = "cancelled"
        self._leave(sequence)
        if tells:
            self._deliver(sequence, sequence.text.finish(), None)

    def fail(self, request: Request, error: Exception | None) -> None:
        """End a request with an error, or as cancelled."""
        for sequence in list(request.sequences):
            self.end(sequence, tells=error is None)
        if error is not None:
            self._outbox.append((request, error))

    def hand_on(self) -> None:
        """Give everything that is new to who waits for it."""
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self._flush(outbox)

    def _leave(self, sequence: Sequence) -> None:
        self._remove(sequence)
        sequence.request.sequences.remove(sequence)

    def _deliver(self, sequence: Sequence, text: str, stop: str | int | None) -> None:
        """Hand on what was drawn since the last time."""
        start, first = sequence.num_delivered, sequence.num_delivered == 0 and sequence.index == 0
        scored = first and sequence.sampling.prompt_logprobs
        delta = Delta(
            index=sequence.index,
            token_ids=sequence.token_ids[sequence.num_prompt + start :],
            scores=sequence.scores[start:],
            versions=sequence.versions[start:],
            text=text,
            stop_reason=sequence.stop_reason,
            stop=stop,
            prompt_scores=sequence.prompt_scores if scored else None,
            num_cached_tokens=(sequence.num_cached or 0) if first else None,
        )
        sequence.num_delivered = sequence.num_drawn
        self._outbox.append((sequence.request, delta))


def failure_of_step(error: Exception, num_running: int) -> LLMKitError:
    """What the caller of a request hears when the step failed that `num_running` completions were in."""
    if is_out_of_memory(error):
        what = f"the generation of {num_running:,} completions side by side, with their KV cache"
        return OutOfMemory("generation", f"{what}{asked_for(error)}")
    text = str(error) if isinstance(error, LLMKitError) else f"{type(error).__name__}: {error}"
    return EngineError(f"generation failed: {text}")
