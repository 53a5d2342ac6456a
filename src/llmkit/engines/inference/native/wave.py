"""One batch of requests, from their prompts to their last tokens, a decode step at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmkit.engines.inference.native.cache import make_cache
from llmkit.engines.inference.native.sampler import RowRules, draw
from llmkit.models.policy import Policy
from llmkit.types import Completion, SamplingParams, StopReason


@dataclass(eq=False)
class Request:
    """A prompt on its way to a completion."""

    prompt_ids: list[int]
    sampling: SamplingParams
    seed: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    stop_reason: StopReason | None = None

    def take(self, token: int, logprob: float, version: int) -> None:
        """Append one drawn token and see whether it is the last."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        self.versions.append(version)
        if token in self.sampling.stop_token_ids:
            self.stop_reason = "stop"
        elif len(self.token_ids) >= self.sampling.max_new_tokens:
            self.stop_reason = "length"

    def completion(self) -> Completion:
        """What was drawn."""
        return Completion(self.token_ids, self.logprobs, self.versions, self.stop_reason or "cancelled")


class Wave:
    """Requests that decode in step. Prompts are padded on the left; equal prompts are computed once.

    Rows that are done stay in the batch until they are half of it, then the rest is moved together.
    """

    def __init__(self, policy: Policy, requests: Sequence[Request]) -> None:
        self._policy = policy
        self._rows = list(requests)
        self._position = 0
        self._rules = RowRules.of([r.sampling for r in requests], [r.seed for r in requests], policy.device)
        self._cache = make_cache(policy.model.config)
        self._mask: Tensor = torch.empty(0)
        self._next: Tensor = torch.empty(0)

    @property
    def running(self) -> list[Request]:
        """Requests that are not done."""
        return [request for request in self._rows if request.stop_reason is None]

    @torch.inference_mode()
    def step(self, version: int) -> None:
        """Draw one token for every row."""
        logits = self._prefill() if self._position == 0 else self._decode()
        tokens, logprobs = draw(logits, self._rules, self._position)
        self._next = tokens
        self._position += 1
        for request, token, logprob in zip(self._rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if request.stop_reason is None:
                request.take(token, logprob, version)
        if self.running and 2 * len(self.running) <= len(self._rows):
            self._compact()

    def _prefill(self) -> Tensor:
        """[B, V] logits after each prompt."""
        prompts = list(dict.fromkeys(tuple(request.prompt_ids) for request in self._rows))
        longest = max(map(len, prompts))
        device = self._policy.device
        token_ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        logits = self._forward(token_ids, mask, (mask.cumsum(dim=1) - 1).clamp(min=0))
        index = {prompt: row for row, prompt in enumerate(prompts)}
        rows = torch.tensor([index[tuple(request.prompt_ids)] for request in self._rows], device=device)
        self._cache.batch_select_indices(rows)
        self._mask = mask[rows]
        return logits[rows]

    def _decode(self) -> Tensor:
        """[B, V] logits after the tokens drawn last."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._rows), 1)], dim=1)
        return self._forward(self._next[:, None], self._mask, self._mask.sum(dim=1, keepdim=True) - 1)

    def _forward(self, token_ids: Tensor, mask: Tensor, position_ids: Tensor) -> Tensor:
        with self._policy.autocast():
            output = self._policy.model(
                input_ids=token_ids,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1]

    def _compact(self) -> None:
        kept = [row for row, request in enumerate(self._rows) if request.stop_reason is None]
        rows = torch.tensor(kept, device=self._policy.device)
        self._rows = [self._rows[row] for row in kept]
        self._rules = self._rules.select(rows)
        self._mask = self._mask[rows]
        self._next = self._next[rows]
        self._cache.batch_select_indices(rows)
