"""The command `llmkit bench weights`."""

from enum import StrEnum
from typing import Annotated

import typer

from llmkit.bench.options import AsJson, Output, Plot, Repeats, deliver
from llmkit.bench.presets import Preset

EXAMPLES = """\b
Examples:
  llmkit bench weights --engine vllm --model 150m
  llmkit bench weights --engine sglang --model DIR --transport shared_memory --transport adapter --lora-rank 32
  llmkit bench weights --preset quick --engine vllm --set engine.eager=true --json
  llmkit bench weights --transport nccl --set engine.dp=2 --set engine.gpus=[1,2]
"""

EVERYWHERE = ("shared_memory", "disk", "gloo", "adapter")


class Transport(StrEnum):
    """Ways of weights, by the names of `engine.sync.transport`."""

    SHARED_MEMORY = "shared_memory"
    DISK = "disk"
    NCCL = "nccl"
    GLOO = "gloo"
    CUDA_IPC = "cuda_ipc"
    ADAPTER = "adapter"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(weights)


def weights(
    preset: Preset = None,
    engine: Annotated[str, typer.Option(metavar="NAME", help="Whose servers get weights: vllm or sglang.")] = "vllm",
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Directory, or a shape with random weights: 5m, 20m, 60m, 150m, 600m.")
    ] = "150m",
    transport: Annotated[
        list[Transport] | None,
        typer.Option(
            show_default=False, help=f"A way of the weights. May be repeated; by default {', '.join(EVERYWHERE)}."
        ),
    ] = None,
    lora_rank: Annotated[int, typer.Option(metavar="N", min=1, help="Of the LoRA that is sent by adapter.")] = 16,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Setting of engine or device; may be repeated."),
    ] = None,
    repeats: Repeats = 5,
    as_json: AsJson = False,
    output: Output = None,
    plot: Plot = None,
) -> None:
    """Measure how long running servers wait for a policy's new weights, by each way that they can come.

    Each way has servers of its own. What servers say after the first update is compared with what the policy says.
    """
    from llmkit.bench.plot import draw
    from llmkit.bench.weights import WeightsBench, measure

    transports = tuple(dict.fromkeys(one.value for one in transport or ())) or EVERYWHERE
    request = WeightsBench(engine, overrides or (), model, transports, lora_rank, repeats)
    deliver(measure(request), output, plot, draw, as_json=as_json)
