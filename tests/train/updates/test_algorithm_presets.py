"""Every algorithm that is shipped resolves over a preset and over bare data, and is the published formula."""

import math
import statistics
from collections.abc import Callable, Sequence

import pytest
import torch

from llmkit.config.presets import list_presets
from llmkit.config.resolve import resolve
from llmkit.config.runs import SCHEMAS
from llmkit.train.algorithm_presets import algorithm_names, find_algorithm
from llmkit.train.grpo_update import batch_loss
from llmkit.train.idle_settings import idle_dpo_settings, idle_grpo_settings
from llmkit.train.mismatch import Comparison
from llmkit.train.rollout_batch import penalize, score_groups, trained_batches

from .unigram import UnigramPolicy, resolved, rollout

BASES = {"train/grpo": "gsm8k-tiny", "train/sft": "arithmetic", "train/dpo": "preference"}
ALGORITHMS = [preset for preset in list_presets() if preset.is_algorithm]

ROLLOUTS = [
    rollout([2, 3], 1.0, 0, logprobs=[-0.1, -3.0]),
    rollout([4], 0.0, 0),
    rollout([3, 3, 2], 0.5, 1, logprobs=[-1.0, -2.0, -0.5]),
    rollout([4, 2, 0, 1], -1.0, 1),
]
REWARDS = [one.reward or 0.0 for one in ROLLOUTS]
OLD = UnigramPolicy(seed=7).logits.detach().log_softmax(0).tolist()
NEW = UnigramPolicy(seed=0).logits.detach().log_softmax(0).tolist()
REFERENCE = UnigramPolicy(seed=0).reference.tolist()
NUM_TOKENS, LIMIT = 10, 4
Rows = list[list[float]]


def by_group(formula: Callable[[Sequence[float]], list[float]], rewards: Sequence[float] = REWARDS) -> list[float]:
    return [*formula(rewards[:2]), *formula(rewards[2:])]


def centred(group: Sequence[float]) -> list[float]:
    return [reward - statistics.fmean(group) for reward in group]


def normalized(group: Sequence[float]) -> list[float]:
    return [value / statistics.pstdev(group) for value in centred(group)]


def others(group: Sequence[float]) -> list[float]:
    return [group[0] - group[1], group[1] - group[0]]


def rows(term: Callable[[int, float, float, float, float], float], advantages: Sequence[float]) -> Rows:
    """A term of each token by (number of its completion, log-ratio, log-probability, sampler's, advantage)."""
    return [
        [
            term(index, NEW[token] - OLD[token], NEW[token], one.logprobs[place], advantages[index])
            for place, token in enumerate(one.token_ids)
            if place >= 2
        ]
        for index, one in enumerate(ROLLOUTS)
    ]


def clip(log_ratio: float, advantage: float, low: float, high: float) -> float:
    ratio = math.exp(log_ratio)
    return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def over_tokens(found: Rows) -> float:
    return sum(map(sum, found)) / NUM_TOKENS


def over_sequences(found: Rows) -> float:
    return statistics.fmean(statistics.fmean(row) for row in found)


def over_a_length(found: Rows) -> float:
    return sum(map(sum, found)) / (len(found) * LIMIT)


def sequence_log_ratio(index: int) -> float:
    return statistics.fmean(NEW[token] - OLD[token] for token in ROLLOUTS[index].token_ids[2:])


def grpo() -> float:
    kl = [
        [math.exp(REFERENCE[t] - NEW[t]) - 1 - (REFERENCE[t] - NEW[t]) for t in one.token_ids[2:]] for one in ROLLOUTS
    ]
    policy = rows(lambda i, d, lp, s, a: clip(d, a, 0.2, 0.2), by_group(normalized))
    return over_sequences(policy) + 0.04 * over_sequences(kl)


def dapo() -> float:
    # the last fifth of 4 tokens is 1 token: only the completion of 4 is punished, with 1
    rewards = [*REWARDS[:3], REWARDS[3] - 1]
    return over_tokens(rows(lambda i, d, lp, s, a: clip(d, a, 0.2, 0.28), by_group(normalized, rewards)))


def reinforce_pp() -> float:
    """Rewards minus the divergence of each token and of those after it, normalized over all tokens."""
    kl = [[OLD[token] - REFERENCE[token] for token in one.token_ids[2:]] for one in ROLLOUTS]
    returns = [
        [reward - 0.01 * sum(row[place:]) for place in range(len(row))] for reward, row in zip(REWARDS, kl, strict=True)
    ]
    every = [value for row in returns for value in row]
    mean, deviation = statistics.fmean(every), statistics.pstdev(every)
    ratios = rows(lambda i, d, lp, s, a: d, REWARDS)
    return over_tokens(
        [
            [clip(d, (value - mean) / deviation, 0.2, 0.2) for d, value in zip(log_ratios, row, strict=True)]
            for log_ratios, row in zip(ratios, returns, strict=True)
        ]
    )


def decoupled_term(index: int, d: float, lp: float, sampler: float, advantage: float) -> float:
    weight = math.exp(lp - d - sampler)  # proximal policy over the engine
    return (weight if weight <= 5 else 0.0) * clip(d, advantage, 0.2, 0.2)


def dual_clip_term(index: int, d: float, lp: float, sampler: float, advantage: float) -> float:
    loss = clip(d, advantage, 0.2, 0.2)
    return min(loss, -3 * advantage) if advantage < 0 else loss


def sapo_term(index: int, d: float, lp: float, sampler: float, advantage: float) -> float:
    temperature = 1.0 if advantage > 0 else 1.05
    return -4 / temperature * advantage / (1 + math.exp(-temperature * (math.exp(d) - 1)))


BY_HAND: dict[str, Callable[[], float]] = {
    "grpo": grpo,
    "dr_grpo": lambda: over_a_length(rows(lambda i, d, lp, s, a: clip(d, a, 0.2, 0.2), by_group(centred))),
    "dapo": dapo,
    "gspo": lambda: over_sequences(
        rows(lambda i, d, lp, s, a: clip(sequence_log_ratio(i), a, 3e-4, 4e-4), by_group(normalized))
    ),
    "rloo": lambda: over_a_length(rows(lambda i, d, lp, s, a: -a * lp, by_group(others))),
    "reinforce_pp": reinforce_pp,
    "cispo": lambda: over_tokens(
        rows(lambda i, d, lp, s, a: -min(math.exp(d), 5.0) * a * lp, by_group(normalized))
    ),
    "decoupled": lambda: over_tokens(rows(decoupled_term, by_group(normalized))),
    "dual_clip": lambda: over_tokens(rows(dual_clip_term, by_group(normalized))),
    "sapo": lambda: over_sequences(rows(sapo_term, by_group(normalized))),
}  # fmt: skip


def test_every_algorithm_of_grpo_has_its_formula_here():
    assert sorted(BY_HAND) == algorithm_names("train/grpo")


@pytest.mark.parametrize("name", BY_HAND)
def test_the_loss_is_the_published_formula(name: str):
    limit = [f"sampling.max_new_tokens={LIMIT}"]
    run = resolved("train/grpo", *limit, files=[find_algorithm("train/grpo", name)])
    policy = UnigramPolicy()
    scored, _ = score_groups(ROLLOUTS, run)
    (trained,) = trained_batches(scored, run, policy, keep_all=True)  # type: ignore[arg-type]
    sampled = torch.tensor([token for one in ROLLOUTS for token in one.token_ids[2:]])
    trained.old_logprobs = torch.tensor(OLD, dtype=torch.float64)[sampled]
    if run.algorithm.needs_reference:
        trained.reference_logprobs = torch.tensor(REFERENCE, dtype=torch.float64)[sampled]
    if run.algorithm.kl_in == "reward":
        penalize([trained], run.algorithm)
    totals = {"token": NUM_TOKENS, "sequence": len(ROLLOUTS), "constant": len(ROLLOUTS) * LIMIT}
    loss, _ = batch_loss(policy, trained, run, totals[run.algorithm.average], Comparison())  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(BY_HAND[name](), rel=1e-5)


@pytest.mark.parametrize("preset", ALGORITHMS, ids=lambda preset: preset.name)
def test_resolves_over_a_preset_and_brings_the_algorithm_alone(preset):
    base = BASES[preset.command]
    waiting = ["dataset.path=pairs.jsonl"] if base == "preference" else []
    settings = {"command": preset.command, "preset": base, "environ": {}, "overrides": waiting}
    over = resolve(SCHEMAS[preset.command], **settings, files=[preset.path])
    under = resolve(SCHEMAS[preset.command], **settings)
    assert {**over.tree, "algorithm": None} == {**under.tree, "algorithm": None}
    changed = [name for name, value in over.tree["algorithm"].items() if value != under.tree["algorithm"][name]]
    assert changed
    for name in changed:
        if not isinstance(over.tree["algorithm"][name], dict):
            assert preset.path.name in over.origin(f"algorithm.{name}").place
    assert "arXiv" in preset.description or "https://" in preset.description


@pytest.mark.parametrize("preset", ALGORITHMS, ids=lambda preset: preset.name)
def test_sets_nothing_that_has_no_effect(preset):
    algorithm = resolved(preset.command, files=[preset.path]).algorithm
    if preset.command == "train/grpo":
        assert list(idle_grpo_settings(algorithm)) == []
    if preset.command == "train/dpo":
        assert list(idle_dpo_settings(algorithm)) == []
