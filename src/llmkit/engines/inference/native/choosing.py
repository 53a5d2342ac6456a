"""Which runner executes a model, and how large its cache is."""

import importlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llmkit.engines.inference.contract import Demand
from llmkit.engines.inference.native.cuda.device import why_not
from llmkit.engines.inference.native.probe import packed_runner
from llmkit.engines.inference.native.runner import BLOCK_SIZE, Runner
from llmkit.engines.inference.native.scheduler import Limits, blocks_for
from llmkit.engines.inference.native.sequence_runner import SequenceRunner
from llmkit.errors import ConfigError, EngineError
from llmkit.formatting import format_bytes, format_number
from llmkit.models.policy import Policy

if TYPE_CHECKING:
    from llmkit.engines.inference.native import Config

logger = logging.getLogger(__name__)

CPU_RUNNER = "llmkit.engines.inference.native.cpu.runner"
SHARE = {"cuda": 0.85, "cpu": 0.25, "mps": 0.5}
"""Of the free memory, what the cache takes unless it is told."""
TRAINING_SHARE = 0.3
"""The same of a GPU that a trainer needs most of."""
MOST_DEFAULT_BYTES = 4 << 30
"""More than this is not taken of a computer's main memory unless it is told."""


@dataclass(frozen=True)
class Chosen:
    """A runner with its cache.

    Attributes:
        name: cuda, packed, sequence or cpu.
        reason: why it is not a faster one; empty when it is the fastest.
        with_adapters: makes a runner that takes any adapter, where this one does not; None when there is none.
    """

    name: str
    runner: Runner
    reason: str
    num_blocks: int
    limits: Limits
    device: torch.device
    with_adapters: Callable[[], Runner] | None = None


def choose(policy: Policy, config: "Config", demand: Demand | None = None) -> Chosen:
    """The fastest runner that can execute the policy's model, or the one that was asked for, with its cache.

    Args:
        demand: the most that will be asked for; None where nobody knows.

    Raises:
        ConfigError: the runner that was asked for cannot execute the model, or the cache was asked to be too large.
    """
    name, runner, reason, with_adapters = _runner(policy, config)
    limits = Limits(
        max_sequences=config.max_batch_size,
        max_step_tokens=max(config.max_step_tokens, config.max_batch_size),
        keeps_prefixes=config.prefix_cache and name != "sequence",
        shares_blocks=name != "sequence",
        divides_prompts=name != "sequence",
    )
    if not config.cuda_graphs and name != "cuda":
        logger.warning("engine.cuda_graphs=false has no effect: the runner is %s", name)
    if config.copy_weights is not None and name != "cpu":
        logger.warning("engine.copy_weights has no effect: the runner is %s", name)
    num_blocks = _num_blocks(policy, runner, config, demand)
    try:
        runner.allocate(num_blocks)
    except EngineError as error:
        raise ConfigError(f"{error}. {_what_fits(policy, runner, below=num_blocks)}") from error
    return Chosen(name, runner, reason, num_blocks, limits, policy.device, with_adapters)


def _runner(policy: Policy, config: "Config") -> tuple[str, Runner, str, Callable[[], Runner] | None]:
    wanted = config.runner
    reasons: dict[str, str] = {}
    if wanted in ("auto", "cpu"):
        made = _cpu_runner(policy, config.copy_weights)
        if not isinstance(made, str):
            return "cpu", made, "", lambda: _with_adapters(policy)
        reasons["cpu"] = made
    if wanted in ("auto", "cuda"):
        made = _cuda_runner(policy, config)
        if not isinstance(made, str):
            return "cuda", made, "", None
        reasons["cuda"] = made
    if wanted in ("auto", "packed"):
        packed = packed_runner(policy)
        if not isinstance(packed, str):
            if policy.device.type == "cuda" and "cuda" in reasons:
                logger.warning("%s runs without kernels, which is slower: %s", _model_name(policy), reasons["cuda"])
            return "packed", packed, reasons.get("cuda" if policy.device.type == "cuda" else "cpu", ""), None
        reasons["packed"] = packed
    if wanted in reasons:
        raise ConfigError(f"engine.runner={wanted}: {_model_name(policy)}: {reasons[wanted]}. Use engine.runner=auto")
    if wanted == "auto":
        logger.warning(
            "%s runs one sequence after another, which is slower: %s", _model_name(policy), reasons["packed"]
        )
    return "sequence", SequenceRunner(policy), reasons.get("packed", "engine.runner=sequence"), None


def _cpu_runner(policy: Policy, copies_weights: bool | None) -> Runner | str:
    """The runner in C++, or why it cannot be had."""
    if policy.device.type != "cpu":
        return f"it is for the CPU, and the model is on {policy.device}"
    if importlib.util.find_spec(CPU_RUNNER.rpartition(".")[0]) is None:
        return "this installation has none"
    kind = importlib.import_module(CPU_RUNNER).CpuRunner
    if objection := kind.why_not(policy):
        return objection
    try:
        return kind(policy, copies_weights=copies_weights)
    except EngineError as error:
        raise ConfigError(f"{error}. Set engine.copy_weights=false") from error


def _cuda_runner(policy: Policy, config: "Config") -> Runner | str:
    """The runner with kernels for GPUs, or why it cannot be had."""
    if objection := why_not(policy.device):
        return objection
    from llmkit.engines.inference.native.cuda.runner import CudaRunner  # imports Triton

    return packed_runner(policy, partial(CudaRunner, max_rows=config.max_batch_size, records=config.cuda_graphs))


def _with_adapters(policy: Policy) -> Runner:
    runner = packed_runner(policy)
    if isinstance(runner, str):
        raise EngineError(f"adapters need engine.runner=packed, which cannot execute {_model_name(policy)}: {runner}")
    return runner


def _num_blocks(policy: Policy, runner: Runner, config: "Config", demand: Demand | None) -> int:
    """Blocks of the cache: as told, or as many as are useful within a share of the free memory."""
    if config.num_blocks is not None:
        return config.num_blocks
    context = blocks_for(policy.context_length)
    useful = context * config.max_batch_size
    if config.cache_memory_gb is not None:
        wanted = int(config.cache_memory_gb * 1e9)
        if (free := free_memory(policy.device)) is not None and wanted > free:
            raise ConfigError(
                f"engine.cache_memory_gb={config.cache_memory_gb:g}: {format_bytes(free)} are free. "
                f"{_what_fits(policy, runner, below=wanted // max(1, runner.bytes_per_block))}"
            )
    else:
        wanted = _default_memory(policy.device)
        if demand is not None:
            useful = min(useful, _blocks_of(demand, config.max_batch_size, context))
            if policy.device.type == "cuda":
                wanted = int(wanted * TRAINING_SHARE / SHARE["cuda"])
    found = min(useful, wanted // max(1, runner.bytes_per_block))
    if found < 2:
        raise ConfigError(
            f"no room for a cache: a block of {BLOCK_SIZE} tokens takes {format_bytes(runner.bytes_per_block)}, and "
            f"{format_bytes(wanted)} may be used. Free memory, set engine.cache_memory_gb, or choose a smaller model"
        )
    return found


def _blocks_of(demand: Demand, max_batch_size: int, context: int) -> int:
    """Blocks that all completions side by side can fill, and one more for each, which lets the last one in early."""
    return min(demand.num_completions, max_batch_size) * (min(blocks_for(demand.max_tokens), context) + 1)


def _default_memory(device: torch.device) -> int:
    free = free_memory(device)
    wanted = int((MOST_DEFAULT_BYTES if free is None else free) * SHARE.get(device.type, 0.25))
    return wanted if device.type == "cuda" else min(wanted, MOST_DEFAULT_BYTES)


def _what_fits(policy: Policy, runner: Runner, *, below: int) -> str:
    """A number of blocks to try: a limit on this process may leave less than the machine has free."""
    blocks = max(1, min(_default_memory(policy.device) // max(1, runner.bytes_per_block), below // 2))
    tokens, size = format_number(blocks * BLOCK_SIZE), format_bytes(blocks * runner.bytes_per_block)
    return f"Try engine.num_blocks={blocks}: {tokens} tokens of context in all, {size}"


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be taken on a device without pushing anything out; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return int(found) * 1024 if found else None


def end_tokens(policy: Policy, tokenizer: Any) -> list[int]:
    """Ids that end a text, as the model and the tokenizer name them."""
    named = getattr(policy.model, "generation_config", None) or policy.model.config.get_text_config()
    ids = named.eos_token_id
    found = {} if ids is None else dict.fromkeys(ids if isinstance(ids, list) else [ids])
    if tokenizer is not None and tokenizer.eos_token_id is not None:
        found[tokenizer.eos_token_id] = None
    return list(found)


def _model_name(policy: Policy) -> str:
    return policy.model.config.model_type
