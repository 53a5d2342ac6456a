"""What a few optimizer steps come to, in any number of processes: `python cases.py OUT MODEL PORT CASE...`.

Started once for each rank, with torchrun's variables. Each case has a process group of its own, at the next port.
"""

import asyncio
import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llmkit.config.resolve import resolve
from llmkit.config.runs import schema_of
from llmkit.data.collate import collate
from llmkit.distributed.whole import fill, skeleton
from llmkit.distributed.world import joined, world
from llmkit.engines.training.torch_engine import TorchEngine
from llmkit.errors import LLMKitError
from llmkit.models.loading import load_tokenizer
from llmkit.models.policy import Policy
from llmkit.train import dpo, grpo_update, sft
from llmkit.train.loading import load_policy
from llmkit.train.rollout_maker import RolloutMaker
from llmkit.train.sampler import Sampler
from llmkit.train.saving import Copier
from llmkit.types import PreferencePair, Record, Rollout, Sample, Source

NUM_STEPS = 3
SETTINGS: dict[str, Any] = {
    "model.path": "",
    "dataset.name": "arithmetic",
    "optim.learning_rate": 1e-2,
    "optim.schedule": "constant",
    "optim.optimizer.eps": 1e-2,
    "device.device": "cpu",
    "device.threads": 1,
}
DDP: dict[str, Any] = {}
FSDP = {"parallel.strategy": "fsdp"}
TENSOR = {"parallel.tensor": 2}
LORA = {"adapter.name": "lora", "adapter.r": 4, "adapter.b_learning_rate_ratio": 4.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft-ddp": ("train/sft", DDP),
    "sft-fsdp": ("train/sft", FSDP),
    "sft-tensor": ("train/sft", TENSOR),
    "sft-hsdp": ("train/sft", {"parallel.shard": 2}),
    "sft-fsdp-tensor": ("train/sft", FSDP | TENSOR),
    "lora-ddp": ("train/sft", LORA | DDP),
    "lora-fsdp": ("train/sft", LORA | FSDP),
    "lora-tensor": ("train/sft", LORA | TENSOR),
    "ema-fsdp": ("train/sft", FSDP | {"optim.ema_decay": 0.9, "optim.max_grad_norm": 0.1}),
    "dpo-ddp": ("train/dpo", DDP | {"algorithm.losses": {"sigmoid": 1.0, "bco": 0.5}}),
    "dpo-fsdp": ("train/dpo", FSDP | {"algorithm.losses": {"sigmoid": 1.0, "bco": 0.5}}),
    "grpo-ddp": ("train/grpo", DDP | {"algorithm.kl_coef": 0.1}),
    "grpo-fsdp": ("train/grpo", FSDP | {"algorithm.kl_coef": 0.1, "algorithm.average": "sequence"}),
    "grpo-penalty-ddp": (
        "train/grpo",
        DDP | {"algorithm.kl_coef": 0.1, "algorithm.kl_in": "reward", "algorithm.advantage_scale": "batch",
               "algorithm.kl_estimator": "k1", "algorithm.baseline": "batch_mean"},
    ),
    "muon-fsdp": ("train/sft", FSDP | {"optim.optimizer.name": "muon"}),
    "nan-skip-ddp": ("train/sft", DDP | {"optim.on_nonfinite": "skip"}),
    "nan-raise-fsdp": ("train/sft", FSDP),
}  # fmt: skip


def tokens(step: int, index: int, length: int) -> list[int]:
    generator = torch.Generator().manual_seed(1000 * step + index)
    return torch.randint(0, 250, (length,), generator=generator).tolist()


def samples(step: int) -> list[Sample]:
    """Five rows of different lengths: ranks get different numbers of micro-batches."""
    rows = []
    for index, length in enumerate((6, 31, 9, 12, 25)):
        weights = [0.0, 0.0] + [1.0] * (length - 2)
        rows.append(Sample(tokens(step, index, length), weights, Source("rows.jsonl", index + 1)))
    return rows


def pairs(step: int) -> list[PreferencePair]:
    prompt = [5, 6, 7]

    def answer(index: int, length: int) -> Sample:
        return Sample(
            prompt + tokens(step, index, length), [0.0] * 3 + [1.0] * length, Source("pairs.jsonl", index + 1)
        )

    return [PreferencePair(answer(n, 4 + 5 * n), answer(n + 10, 9)) for n in range(3)]


class Echo:
    """A workflow whose completions depend on the seed alone, and a scorer that counts."""

    async def run(self, record: Record, engine: Any, codec: Any, sampling: Any, group_id: int) -> Rollout:
        generator = torch.Generator().manual_seed(sampling.seed % (1 << 62))
        length = int(torch.randint(2, 7, (), generator=generator))
        ids = [3, 4, 5, *torch.randint(0, 250, (length,), generator=generator).tolist()]
        mask = [0] * 3 + [1] * length
        values = [0.0] * 3 + [-3.0] * length
        return Rollout(
            record=record, prompt="", completion="", token_ids=ids, loss_mask=mask, logprobs=values,
            versions=[-1] * 3 + [0] * length, stop_reason="stop", group_id=group_id,
        )  # fmt: skip

    async def score(self, rollouts: list[Rollout]) -> None:
        for rollout in rollouts:
            rollout.reward = sum(token % 3 for token in rollout.token_ids) / 10

    def combine(self, rollouts: list[Rollout]) -> None:
        """Every rollout has its reward."""

    async def load_weights(self, version: int) -> None:
        """There are none."""


def draw(run: Any, step: int) -> list[Rollout]:
    """Groups that all processes have sampled together."""
    echo: Any = Echo()
    codec: Any = type("Codec", (), {"stop_token_ids": ()})()
    sampler = Sampler(run, RolloutMaker(codec, echo, echo, echo, echo.load_weights))
    records = [Record((), source=Source("prompts.jsonl", index + 1)) for index in range(3)]
    rollouts, _ = asyncio.run(sampler.make(records, 4, 1.0, f"train:{step}"))
    return rollouts


def steps(command: str, run: Any, engine: TorchEngine, poisoned: bool) -> Iterator[dict[str, float]]:
    rank, size = world().data_rank, world().data_size
    for step in range(NUM_STEPS):
        if poisoned:
            batch = collate(samples(step)[rank::size])
            loss = engine.policy.logprobs(batch).logprobs.sum() / 100
            engine.backward(loss * float("nan") if (step, rank) == (1, 1) else loss, batch.sources)
            yield engine.step()
            continue
        match command:
            case "train/sft":
                yield sft.update(engine, samples(step)[rank::size], run)
            case "train/dpo":
                yield dpo.update(engine, pairs(step)[rank::size], run)
            case _:
                yield grpo_update.update(engine, draw(run, step), run)


def work(name: str, model: str, parallel: bool) -> dict[str, Any]:
    """Metrics of each step and the weights after the last one; the error where the case ends with one."""
    command, chosen = CASES[name]
    settings = SETTINGS | chosen | {"model.path": model}
    settings |= {"batch.tokens_per_micro_batch": 40}
    if not parallel:
        settings = {key: value for key, value in settings.items() if not key.startswith("parallel.")}
    options = {key: ("test", value) for key, value in settings.items()}
    run: Any = resolve(schema_of(command), command=command, options=options).run
    with joined(run.parallel, torch.device("cpu")):
        try:
            return _train(command, run, name.startswith("nan"))
        except LLMKitError as error:
            return {"error": str(error), "errors": [str(error)]}


def _train(command: str, run: Any, poisoned: bool) -> dict[str, Any]:
    policy, adapter, blank = load_policy(
        run, load_tokenizer(run.model), None, total_steps=NUM_STEPS, with_reference=command != "train/sft",
        directory=None,
    )  # fmt: skip
    unfilled = copy.deepcopy(blank)
    whole = blank if blank is not None else skeleton(policy.model, share_frozen=False)
    engine = TorchEngine(policy, run.optim, NUM_STEPS, adapter)
    metrics = list(steps(command, run, engine, poisoned))
    held_out = sft.evaluate(policy, samples(9), run)["eval_loss"] if command == "train/sft" else 0.0
    with engine.evaluation_weights():
        fill(whole, policy.model, torch.device("cpu"))
    weights = {name: parameter.detach().clone() for name, parameter in whole.named_parameters()}
    return {
        "metrics": metrics, "held_out": held_out, "weights": weights, "skipped": engine.skipped,
        "brought": brought(run, policy, unfilled) if command == "train/grpo" else {},
    }  # fmt: skip


def brought(run: Any, policy: Policy, blank: torch.nn.Module | None) -> dict[str, torch.Tensor]:
    """The whole weights that this process keeps where the first one alone brings them to servers."""
    is_first = world().is_main
    copier = Copier(policy, load_tokenizer(run.model), world(), blank, False, samples_here=is_first)
    copier.refresh_sampling()
    return {name: one.detach().clone() for name, one in copier.sampling_policy.model.named_parameters()}


@contextmanager
def at_port(port: int) -> Iterator[None]:
    os.environ["MASTER_PORT"] = str(port)
    yield


def main(out: str, model: str, port: str, *names: str) -> None:
    found: dict[str, Any] = {}
    for index, name in enumerate(names):
        with at_port(int(port) + index):
            found[name] = work(name, model, parallel=True)
    torch.save(found, Path(out) / f"rank-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
