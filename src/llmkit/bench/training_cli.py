"""The command `llmkit bench train`."""

from enum import StrEnum
from typing import Annotated

import typer

from llmkit.bench.options import AsJson, Compare, Output, Plot, Python, Threads, deliver, peer_python
from llmkit.bench.presets import Preset

EXAMPLES = """\b
Examples:
  llmkit bench train --only sft-5m
  llmkit bench train --compare trl --python trl-env/bin/python
  llmkit bench train --compare trl --python trl-env/bin/python --only sft-same-losses --warmup-steps 50
"""


class Training(StrEnum):
    """Training that can be measured by itself."""

    SFT_SAME_LOSSES = "sft-same-losses"
    SFT_5M = "sft-5m"
    SFT_5M_FP32 = "sft-5m-fp32"
    SFT_60M = "sft-60m"
    SFT_152K = "sft-152k"
    DPO_5M = "dpo-5m"
    DPO_60M = "dpo-60m"
    GRPO = "grpo"
    GRPO_UPDATE = "grpo-update"


class Device(StrEnum):
    """Where contenders train."""

    CPU = "cpu"
    CUDA = "cuda"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(train)


def train(
    preset: Preset = None,
    only: Annotated[
        list[Training] | None,
        typer.Option(metavar="CASE", help=f"Measure only this: {', '.join(Training)}. May be repeated."),
    ] = None,
    compare: Compare = None,
    python: Python = None,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Turns of each contender that count.")] = 4,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Optimizer steps in a turn.")] = 3,
    warmup_steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Steps before the first turn, compared by their losses alone.")
    ] = 2,
    threads: Threads = 1,
    device: Annotated[
        Device, typer.Option(metavar="DEVICE", help=f"Where to train: {', '.join(Device)}.")
    ] = Device.CPU,
    as_json: AsJson = False,
    output: Output = None,
    plot: Plot = None,
) -> None:
    """Measure training steps of SFT, DPO and GRPO: tokens per second, memory, and whether losses are the same.

    Models have random weights and the shape of Qwen3; rows are made up, and the same for everyone. `llmkit train` and
    TRL's own trainers run in processes of their own, a few steps in turn. TRL runs in several ways (autocast, weights
    in bfloat16, padded or not), and each figure is compared with the best of theirs. Speeds are compared only where
    losses are the same but for rounding.
    """
    from llmkit.bench.plot import draw
    from llmkit.bench.training import TrainBench, measure

    request = TrainBench(
        cases=tuple(case.value for case in only or Training),
        trl_python=peer_python("trl", "trl", python, is_compared=bool(compare)),
        repeats=repeats,
        steps=steps,
        warmup_steps=warmup_steps,
        threads=threads,
        device=device.value,
    )
    deliver(measure(request), output, plot, draw, as_json=as_json)
