"""Draw one token for every row of a batch, each row by its own rules and its own random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmkit.types import SamplingParams


def signed(value: int) -> int:
    """The 64-bit two's-complement reading of an integer; int64 tensors wrap around in the same way."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


# Constants of the SplitMix64 generator.
GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = signed(0xBF58476D1CE4E5B9)
MIX_2 = signed(0x94D049BB133111EB)


@dataclass
class RowRules:
    """Sampling parameters of B rows as tensors.

    Attributes:
        seeds: [B] int64.
        temperatures: [B] float32, 1 for greedy rows.
        greedy: [B] bool.
        top_k: [B] int64, the vocabulary's size where it is off.
        top_p: [B] float32.
    """

    seeds: Tensor
    temperatures: Tensor
    greedy: Tensor
    top_k: Tensor
    top_p: Tensor
    truncates: bool

    @classmethod
    def of(cls, sampling: Sequence[SamplingParams], seeds: Sequence[int], device: torch.device) -> "RowRules":
        """Gather the parameters of each row."""
        return cls(
            seeds=torch.tensor([signed(seed) for seed in seeds], dtype=torch.int64, device=device),
            temperatures=torch.tensor([s.temperature or 1.0 for s in sampling], device=device),
            greedy=torch.tensor([s.temperature == 0 for s in sampling], device=device),
            top_k=torch.tensor([s.top_k or 1 << 62 for s in sampling], device=device),
            top_p=torch.tensor([s.top_p for s in sampling], device=device),
            truncates=any(s.top_k > 0 or s.top_p < 1 for s in sampling),
        )

    def select(self, rows: Tensor) -> "RowRules":
        """The rules of some rows."""
        return RowRules(
            self.seeds[rows], self.temperatures[rows], self.greedy[rows], self.top_k[rows], self.top_p[rows],
            self.truncates,
        )  # fmt: skip


def draw(logits: Tensor, rules: RowRules, position: int) -> tuple[Tensor, Tensor]:
    """Draw the token at `position` of every row.

    Args:
        logits: [B, V].
        position: how many tokens each row has drawn before.
    Returns: [B] token ids and [B] float32 log-probabilities, nats, after temperature and before top-k and top-p.
    """
    scaled = logits.float() / rules.temperatures[:, None]
    logprobs = scaled.log_softmax(dim=-1)
    kept = truncate(logprobs, rules.top_k, rules.top_p) if rules.truncates else logprobs
    tokens = torch.where(rules.greedy, logits.argmax(dim=-1), inverse_cdf(kept, uniform(rules.seeds, position)))
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]


def truncate(logprobs: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Set what top-k and top-p leave out to minus infinity; the most likely token always stays.

    Top-p (arXiv:1904.09751) keeps the smallest set of likeliest tokens whose probability reaches `top_p`.
    """
    ordered, order = logprobs.sort(dim=-1, descending=True)
    rank = torch.arange(logprobs.shape[-1], device=logprobs.device)
    probability_before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    out = (rank >= top_k[:, None]) | (probability_before >= top_p[:, None])
    out[:, 0] = False
    return logprobs.masked_fill(torch.zeros_like(out).scatter(1, order, out), float("-inf"))


def inverse_cdf(logprobs: Tensor, uniforms: Tensor) -> Tensor:
    """[B] indices drawn from [B, V] unnormalised log-probabilities with [B] uniform numbers in [0, 1)."""
    cumulative = logprobs.double().exp().cumsum(dim=-1)
    total = cumulative[:, -1]
    # A product that rounds up to the total would fall behind the last token that has any probability.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]


def uniform(seeds: Tensor, position: int) -> Tensor:
    """[B] float64 numbers in [0, 1) that depend on seed and position alone.

    A counter-based generator (SplitMix64, doi:10.1145/2714064.2660195): no state, so a row's draws are the same
    whatever shares its batch, and can go on after a restart.
    """
    bits = seeds + signed(GOLDEN * (position + 1))
    bits = (bits ^ _shift_right(bits, 30)) * MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * MIX_2
    bits = bits ^ _shift_right(bits, 31)
    return _shift_right(bits, 11).double() * 2.0**-53


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical shift: the sign bit is not carried on."""
    return (bits >> count) & ((1 << (64 - count)) - 1)
