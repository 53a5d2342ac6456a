"""Facts about the runner for GPUs on a CPU, its kernels interpreted; run by `test_interpreted.py`.

Where a GPU records kernels and replays them, what was recorded is done again.
"""

import asyncio
import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmkit.engines.inference.native.adapter_files import read_adapter
from llmkit.engines.inference.native.choosing import Chosen
from llmkit.engines.inference.native.cuda import layout
from llmkit.engines.inference.native.cuda.graphs import Work, batch_sizes
from llmkit.engines.inference.native.cuda.runner import CudaRunner
from llmkit.engines.inference.native.cuda.waiting import Waits
from llmkit.engines.inference.native.engine import NativeEngine
from llmkit.engines.inference.native.packed_runner import PackedRunner
from llmkit.engines.inference.native.probe import packed_runner
from llmkit.engines.inference.native.runner import Step
from llmkit.engines.inference.native.scheduler import Limits
from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.models.layout import Layout
from llmkit.models.policy import Policy
from llmkit.types import SamplingParams

from .test_architectures import LENGTHS, NEW_TOKENS
from .tiny import PACKED, engine_of, make_model, policy_of, prompts, save_adapter

pytestmark = pytest.mark.usefixtures("bfloat16_products")
CPU = torch.device("cpu")


class Recorder:
    """Does the work once, as a GPU's warm-up does, and again at each replay."""

    def __init__(self) -> None:
        self.num_recorded = 0
        self.num_replayed = 0

    def __call__(self, work: Work) -> Work:
        self.num_recorded += 1
        work()

        def replay() -> None:
            self.num_replayed += 1
            work()

        return replay


def runner_of(policy: Policy, **options: Any) -> CudaRunner:
    found = packed_runner(policy, partial(CudaRunner, **{"max_rows": 16, "record": Recorder(), **options}))
    assert isinstance(found, CudaRunner), found
    return found


def step(*sequences: tuple[list[int], int, list[int]]) -> Step:
    """The next tokens of sequences: token ids, the position of the first, and blocks. Logits after the last ones."""
    counts = torch.tensor([0, *(len(tokens) for tokens, _, _ in sequences)])
    widest = max(len(blocks) for _, _, blocks in sequences)
    starts = counts.cumsum(0).int()
    return Step(
        torch.tensor([token for tokens, _, _ in sequences for token in tokens]),
        torch.tensor([first + index for tokens, first, _ in sequences for index in range(len(tokens))]),
        starts,
        torch.tensor([[*blocks, *[0] * (widest - len(blocks))] for _, _, blocks in sequences], dtype=torch.int32),
        starts[1:].long() - 1,
        [None] * len(sequences),
    )


READ = step((list(range(3, 40)), 0, [5, 2, 7]), ([9], 0, [1]), ([8, 7, 6], 0, [4]))
DRAWN = step(([60], 37, [5, 2, 7]), ([61], 1, [1]), ([62], 3, [4]))


def run(runner: PackedRunner, *steps: Step) -> list[Tensor]:
    runner.allocate(8)
    return [runner.forward(one).clone() for one in steps]


@pytest.mark.parametrize("name", PACKED)
def test_logits_are_those_of_the_runner_without_kernels(name: str):
    model, recorder = make_model(PACKED[name]), Recorder()
    ours = run(runner_of(policy_of(model), record=recorder), READ, DRAWN)
    torch.testing.assert_close(ours, run(packed_runner(policy_of(model)), READ, DRAWN), rtol=1e-4, atol=1e-4)
    assert recorder.num_replayed > 0


@pytest.mark.parametrize("adapters", [[None, None, None], ["own", None, "own"]], ids=str)
def test_no_step_waits_for_the_device(adapters: list[str | None], tmp_path: Path):
    model = make_model(PACKED["llama"])
    runner = runner_of(policy_of(model), records=False)
    save_adapter(model, tmp_path, seed=1, target_modules=["q_proj", "v_proj"])
    runner.adapters.load("own", read_adapter(tmp_path))
    runner.allocate(8)
    with Waits() as waits:
        for one in (READ, DRAWN):
            runner.forward(replace(one, adapters=adapters))
    assert waits.found == []


def test_rows_that_fill_a_batch_write_to_nobodys_block_and_change_nothing():
    policy = policy_of(make_model(PACKED["qwen3"]))
    recorder = Recorder()
    recorded, plain = runner_of(policy, record=recorder), runner_of(policy, records=False)
    for ours, theirs in zip(run(recorded, READ, DRAWN), run(plain, READ, DRAWN), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert recorder.num_replayed > 0
    for ours, theirs in zip(recorded._caches, plain._caches, strict=True):
        torch.testing.assert_close(ours.keys[:8], theirs.keys[:8], rtol=1e-5, atol=1e-5)
        assert ours.keys[8].any(), "the block that fills up"
        assert not theirs.keys[8].any()
        assert not ours.keys[[0, 3, 6]].any(), "blocks that no sequence has"


def test_autocast_rounds_weights_between_replays_and_not_in_them():
    torch.manual_seed(0)
    model = make_model(PACKED["llama"])
    policy = Policy(model, CPU, torch.bfloat16)
    recorder = Recorder()
    runner = runner_of(policy, record=recorder)
    before = run(runner, READ, DRAWN)[1]
    recorded = recorder.num_recorded
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    runner.weights_changed()
    runner.forward(READ)
    ours = runner.forward(DRAWN).clone()
    assert recorder.num_recorded == recorded, "they lie where they lay"
    torch.testing.assert_close(ours, run(packed_runner(policy), READ, DRAWN)[1], rtol=0.05, atol=0.5)
    assert (ours - before).abs().max() > 1


def test_parameters_that_lie_elsewhere_are_recorded_anew():
    policy = policy_of(make_model(PACKED["llama"]))
    recorder = Recorder()
    runner = runner_of(policy, record=recorder)
    run(runner, READ, DRAWN)
    recorded = recorder.num_recorded
    weight = policy.model.get_output_embeddings().weight
    weight.data = weight.data * 2
    runner.weights_changed()
    runner.forward(READ)
    runner.forward(DRAWN)
    assert recorder.num_recorded == recorded + 1


@pytest.mark.parametrize(
    ("name", "window"), [("llama", None), ("mistral, window", 20), ("gemma2, window and softcap", 0)]
)
def test_flash_attention_takes_prompts_that_begin_where_it_can(
    name: str, window: int | None, monkeypatch: pytest.MonkeyPatch
):
    calls: list[Any] = []

    def flash(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, longest: int, *rest: Any) -> Tensor:
        calls.append((boundaries.tolist(), longest, rest[1]))
        scaling, sliding_window = rest
        return Layout(boundaries[1:].tolist(), CPU).attend(query, key, value, scaling, 0.0, sliding_window)

    policy = policy_of(make_model(PACKED[name]))
    runner = runner_of(policy)
    monkeypatch.setattr(layout, "can_run_varlen", lambda _: True)
    monkeypatch.setattr(layout, "varlen_attention", flash)
    begins = step(([60], 37, [5, 2, 7]), (list(range(10, 35)), 0, [0, 3]), ([11, 12, 13], 0, [6]))
    goes_on = step(([61], 38, [5, 2, 7]), ([70, 71], 25, [0, 3]), ([11, 12, 13], 3, [6]))
    ours = run(runner, READ, begins, goes_on)
    taken = [([0, 37, 38, 41], 37, window)] * 2 + [([0, 25, 28], 25, window)] * 2
    assert calls == (taken if window != 0 else [])
    torch.testing.assert_close(ours, run(packed_runner(policy), READ, begins, goes_on), rtol=1e-4, atol=1e-4)


def test_sizes_that_are_recorded():
    assert batch_sizes(1) == [1]
    assert batch_sizes(3) == [1, 2, 3]
    assert batch_sizes(8) == [1, 2, 4, 8]
    assert batch_sizes(20) == [1, 2, 4, 8, 16, 20]
    assert batch_sizes(256)[-3:] == [240, 248, 256]


def test_a_step_of_more_rows_than_were_planned_for_runs_kernel_by_kernel():
    policy = policy_of(make_model(PACKED["llama"]))
    recorder = Recorder()
    ours = run(runner_of(policy, record=recorder, max_rows=2), READ, DRAWN)[1]
    assert recorder.num_recorded == 0
    torch.testing.assert_close(ours, run(packed_runner(policy), READ, DRAWN)[1], rtol=1e-4, atol=1e-4)


def refuse(work: Work) -> Work:
    raise RuntimeError("operation not permitted when stream is capturing")


def synchronising(model: Any) -> None:
    """A model whose forward pass looks at a number."""

    def look(module: Any, given: Any, hidden: Tensor) -> None:
        assert bool(hidden.isfinite().all())

    model.model.norm.register_forward_hook(look)


@pytest.mark.parametrize(
    ("record", "spoil", "reason"),
    [
        (refuse, lambda model: None, "operation not permitted when stream is capturing"),
        (Recorder(), synchronising, "its forward pass waits for the GPU (__bool__, _local_scalar_dense)"),
    ],
)
def test_what_cannot_be_recorded_runs_without_and_says_so(
    record: Any, spoil: Callable[[Any], None], reason: str, caplog: pytest.LogCaptureFixture
):
    model = make_model(PACKED["llama"])
    spoil(model)
    with caplog.at_level(logging.WARNING):
        ours = run(runner_of(policy_of(model), record=record), READ, DRAWN, DRAWN)
    assert caplog.text.count("llama runs without CUDA graphs, which is slower: ") == 1
    assert reason in caplog.text
    theirs = run(packed_runner(policy_of(model)), READ, DRAWN, DRAWN)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_adapters_run_kernel_by_kernel(tmp_path: Path):
    model = make_model(PACKED["llama"])
    merged = save_adapter(model, tmp_path, seed=1, target_modules=["q_proj", "v_proj"])
    recorder = Recorder()
    runner = runner_of(policy_of(model), record=recorder)
    runner.adapters.load("own", read_adapter(tmp_path))
    named = [replace(one, adapters=[None, None, "own"]) for one in (READ, DRAWN)]
    recorded = recorder.num_recorded
    ours = run(runner, *named)[1]
    assert recorder.num_recorded == recorded
    plain, adapted = (run(packed_runner(policy_of(one)), READ, DRAWN)[1] for one in (model, merged))
    torch.testing.assert_close(ours, torch.cat([plain[:2], adapted[2:]]), rtol=1e-3, atol=1e-3)


def engine_over(runner: CudaRunner, num_blocks: int) -> NativeEngine:
    runner.allocate(num_blocks)
    chosen = Chosen("cuda", runner, "", num_blocks, Limits(16, 16), CPU)
    return NativeEngine(chosen, SamplingContext(199, (2,)), context_length=256)


def test_tokens_of_a_busy_engine_are_those_without_kernels():
    model = make_model(PACKED["gemma2, window and softcap"])
    recorder = Recorder()
    asked = prompts(*LENGTHS)
    asked.append(asked[3])
    sampling = SamplingParams(max_new_tokens=NEW_TOKENS, temperature=0)

    async def tokens(engine: Any) -> tuple[list[list[int]], int]:
        together = await asyncio.gather(*(engine.generate(prompt, sampling) for prompt in asked))
        stats = engine.stats()
        await engine.close()
        return [completion.token_ids for completion in together], stats.num_preemptions

    expected, _ = asyncio.run(tokens(engine_of(copy.deepcopy(model), num_blocks=64)))
    found, num_preemptions = asyncio.run(tokens(engine_over(runner_of(policy_of(model), record=recorder), 8)))
    assert found == expected
    assert num_preemptions > 0
    assert recorder.num_replayed > recorder.num_recorded > 2
