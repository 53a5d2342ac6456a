"""Whether servers draw with the policy's weights: what they say of a probe prompt is compared with the policy's own."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.contract import GenerationRequest
from llmkit.engines.inference.merging import collect
from llmkit.engines.inference.native.generating import generating
from llmkit.engines.inference.remote.contract import Dialect, Link
from llmkit.engines.inference.weight_sync.deadlines import deadline, describe
from llmkit.engines.inference.weight_sync.threads import in_thread
from llmkit.errors import EngineError
from llmkit.models.policy import Policy
from llmkit.types import Completion, SamplingParams

PROMPTS = ((7, 5), (11, 40))
"""A factor and a length each; see `probe_prompts`."""


@dataclass(frozen=True)
class Disagreement:
    """How far a server's tokens are from the policy.

    Attributes:
        agreement: share of the tokens that the policy too finds likeliest, or within the tolerance of it.
        place: of the worst token, in its completion.
        token: the worst token's id.
        theirs: its log-probability on the server, nats.
        ours: the policy's.
    """

    agreement: float
    place: int
    token: int
    theirs: float
    ours: float

    @property
    def difference(self) -> float:
        """Of the worst token's log-probabilities, nats."""
        return abs(self.theirs - self.ours)


class ParityProbe:
    """Lets servers complete probe prompts greedily, and scores what they say with the policy."""

    def __init__(self, policy: Policy, dialect: Dialect, config: WeightSyncConfig) -> None:
        self._policy = policy
        self._dialect = dialect
        self._config = config

    async def compare(self, links: Sequence[Link], version: int, adapter: str | None) -> None:
        """Compare all servers.

        Raises:
            EngineError: one of them says something else; names the worst token and both numbers.
        """
        await asyncio.gather(*(self._compare(link, version, adapter) for link in links))

    async def _compare(self, link: Link, version: int, adapter: str | None) -> None:
        async with deadline("asking for its context", self._config.timeout_seconds, link):
            context = (await self._dialect.facts(link)).context_length or self._policy.context_length
        size = min(self._config.probe_tokens, context - 1)
        for whole in probe_prompts(self._policy):
            prompt = whole[: context - size]
            async with deadline("comparing with the policy", self._config.timeout_seconds, link):
                completion = await self._ask(link, prompt, size, version, adapter)
                found = await in_thread(self._measure, prompt, completion)
            if found.difference > self._config.probe_tolerance or found.agreement < self._config.probe_agreement:
                raise EngineError(
                    f"comparing with the policy: {describe(link)} does not draw with the weights of version {version}: "
                    f"token {found.token} at place {found.place} of a probe has log-probability {found.theirs:.4f} "
                    f"there and {found.ours:.4f} in the policy (engine.sync.probe_tolerance="
                    f"{self._config.probe_tolerance:g}), and {found.agreement:.0%} of the tokens agree "
                    f"(engine.sync.probe_agreement={self._config.probe_agreement:g}). Either its weights are wrong, or "
                    "its arithmetic is further from the policy's than these settings allow"
                )

    async def _ask(self, link: Link, prompt: list[int], size: int, version: int, adapter: str | None) -> Completion:
        sampling = SamplingParams(max_new_tokens=size, temperature=0.0, logprob_kind="raw")
        request = GenerationRequest(prompt, sampling, adapter=adapter)
        seconds = self._config.timeout_seconds
        completion = await collect(self._dialect.stream(link, request, version, whole=True, timeout_seconds=seconds))
        if not completion.token_ids:
            raise EngineError(f"comparing with the policy: {describe(link)} has drawn no token for a probe prompt")
        return completion

    def _measure(self, prompt: list[int], completion: Completion) -> Disagreement:
        ids = completion.token_ids
        scores = self._scores(prompt, ids)
        ours = scores.gather(1, torch.tensor(ids)[:, None])[:, 0]
        theirs = torch.tensor(completion.logprobs)
        # A number that is none compares as smaller than everything, and is the worst of all.
        differences = (ours - theirs).abs().nan_to_num(nan=float("inf"))
        worst = int(differences.argmax())
        agrees = scores.max(dim=1).values - ours <= self._config.probe_tolerance
        return Disagreement(float(agrees.float().mean()), worst, ids[worst], float(theirs[worst]), float(ours[worst]))

    @torch.no_grad()
    def _scores(self, prompt: list[int], ids: list[int]) -> Tensor:
        """[N, V] the policy's log-probabilities at the places of a completion's N tokens."""
        policy = self._policy
        tokens = torch.tensor([[*prompt, *ids[:-1]]], device=policy.device)
        with generating(policy):
            logits = policy.model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 :]
        return logits.float().log_softmax(-1).cpu()


def probe_prompts(policy: Policy) -> list[list[int]]:
    """A short and a longer prompt of tokens from all over the vocabulary."""
    size = policy.model.get_input_embeddings().num_embeddings
    return [[(factor * place * place + 17 * place + 3) % size for place in range(length)] for factor, length in PROMPTS]
