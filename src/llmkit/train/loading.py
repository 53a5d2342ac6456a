"""The model of a run: loaded, in its adapter, on its device, divided among the processes."""

from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedTokenizerBase

from llmkit.adapters.contract import Adapter
from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.distributed.whole import skeleton
from llmkit.distributed.world import World, world
from llmkit.engines.training.random_state import seed_everything
from llmkit.errors import ConfigError
from llmkit.memory import during
from llmkit.models.loading import check_vocabulary, load_model, load_on_meta
from llmkit.models.policy import Policy, torch_device
from llmkit.models.threads import bound_kernel_caches, set_threads
from llmkit.terminal import warn
from llmkit.train.adapting import begin_adapter
from llmkit.train.first_rows import Drawn, first_batches
from llmkit.train.idle_settings import can_offload

RANK_SEEDS = 0x9E3779B97F4A7C15
"""Keeps the numbers that processes draw in training apart."""


def load_policy(
    run: SFTRun | DPORun | GRPORun,
    tokenizer: PreTrainedTokenizerBase,
    data: Drawn | None,
    *,
    total_steps: int,
    with_reference: bool,
    directory: Path | None,
) -> tuple[Policy, Adapter, nn.Module | None]:
    """Load what trains.

    Args:
        data: rows for adapters that begin from some; None where rows have no answers yet.
        total_steps: of the run.
        with_reference: keep the model that training began with.
        directory: of the checkpoint that the run goes on from.

    Returns: the policy; its adapter; and its model with empty weights, to copy it into, None where it cannot be copied.

    Raises:
        ConfigError: settings do not fit one another, or the processes.
        ModelError: the model cannot be loaded.
    """
    bound_kernel_caches()
    device = torch_device(run.device)
    set_threads(run.device, device)
    together = world()
    draw = None
    if data is not None:
        limit = run.batch.tokens_per_micro_batch
        draw = partial(first_batches, data, tokens_per_micro_batch=limit, device=device)
    adapter = begin_adapter(run, total_steps, draw)
    check_parallel(run, adapter, together, device)
    adapter.check(load_on_meta(run.model))
    with during("loading", f"loading model.path={run.model.path}"):
        model = load_model(run.model)
        check_vocabulary(model, tokenizer, run.model)
        seed_everything(run.seed)
        is_divided = together.dimensions.is_sharded or together.dimensions.tensor > 1
        # A model that is to be divided goes to the device in parts, unless the adapter wants to run it whole.
        place = torch.device("cpu") if is_divided and not adapter.facts.needs_data else device
        policy = Policy(model.to(place), device, getattr(torch, run.device.compute_dtype))
        policy.model = adapter.restore(model, directory) if directory else adapter.attach(model)
        if directory is None and run.adapter.name != "full":
            make_alike(policy.model, together, everything=adapter.facts.needs_data)
        if with_reference and not adapter.facts.keeps_base:
            policy.reference = load_model(run.model).to(place).requires_grad_(False)
    if run.device.gradient_checkpointing:
        policy.recompute_activations()
    if run.device.offload_activations:
        policy.offloads_activations = can_offload(device)
    blank = None
    # An adapter that looks at updates keeps a state beside the weights, which a copy of the model would lack.
    can_copy = run.model.quantization == "none" and not looks_at_updates(adapter)
    if is_divided or (run.checkpoint.asynchronous and can_copy):
        blank = skeleton(policy.model, share_frozen=not is_divided)
    policy.divide(run.parallel, together)
    if is_divided and policy.passes is None:
        policy.model.to(device)
        if policy.reference is not None:
            policy.reference.to(device)
    if together.data_rank:
        seed_everything((run.seed + together.data_rank * RANK_SEEDS) % (1 << 63))
    return policy, adapter, blank


def check_parallel(run: SFTRun | DPORun | GRPORun, adapter: Adapter, together: World, device: torch.device) -> None:
    """Refuse what cannot be done with divided weights, and tell of settings without effect.

    Raises:
        ConfigError: names the setting and the way out.
    """
    config, dimensions = run.parallel, together.dimensions
    if config.cpu_offload and device.type == "cpu":
        warn("parallel.cpu_offload has no effect: the device is the CPU")
    if not config.reshard_after_forward and not dimensions.is_sharded:
        warn("parallel.reshard_after_forward has no effect without parallel.strategy=fsdp")
    if not dimensions.is_sharded and dimensions.tensor == 1:
        return
    way_out = "use parallel.strategy=ddp with parallel.tensor=1"
    if run.model.quantization != "none":
        raise ConfigError(
            f"model.quantization={run.model.quantization}: weights in few bits cannot be divided among processes; "
            f"{way_out}"
        )
    if looks_at_updates(adapter):
        raise ConfigError(
            f"adapter.name={run.adapter.name} looks at whole weights at each update, and this run divides them; "
            f"{way_out}"
        )


def looks_at_updates(adapter: Adapter) -> bool:
    """Whether the adapter does something of its own at each update."""
    kind = type(adapter)
    return kind.before_update is not Adapter.before_update or kind.after_update is not Adapter.after_update


@torch.no_grad()
def make_alike(model: nn.Module, together: World, *, everything: bool) -> None:
    """Give every process the first one's weights: adapters begin with random numbers and decompositions.

    Args:
        everything: also weights that do not train; those of the checkpoint are alike already.
    """
    if together.size == 1:
        return
    for parameter in model.parameters():
        if everything or parameter.requires_grad:
            dist.broadcast(parameter.data, src=0)
