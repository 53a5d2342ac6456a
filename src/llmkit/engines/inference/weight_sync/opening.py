"""The way of the weights, chosen by setting, policy and servers."""

from pathlib import Path

import torch

from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.remote.contract import Dialect
from llmkit.engines.inference.weight_sync.adapter_delivery import AdapterDelivery
from llmkit.engines.inference.weight_sync.adapter_weights import not_servable
from llmkit.engines.inference.weight_sync.contract import Delivery, Receiver
from llmkit.engines.inference.weight_sync.couriers import CudaIpcCourier, GroupCourier
from llmkit.engines.inference.weight_sync.direct_delivery import DirectDelivery
from llmkit.engines.inference.weight_sync.file_delivery import FileDelivery
from llmkit.engines.inference.weight_sync.handover import Terms
from llmkit.engines.inference.weight_sync.parity import ParityProbe
from llmkit.engines.inference.weight_sync.places import SHARED_MEMORY, WeightsPlace, room
from llmkit.engines.inference.weight_sync.policy_weights import PolicyWeights
from llmkit.engines.inference.weight_sync.transaction import ServerWeightSync
from llmkit.errors import ConfigError
from llmkit.models.policy import Policy

SETTING = "engine.sync.transport"


def open_weight_sync(
    config: WeightSyncConfig, policy: Policy, dialect: Dialect, receiver: Receiver, *, max_lora_rank: int | None
) -> ServerWeightSync:
    """What brings a policy's weights to servers of one kind.

    Args:
        policy: all of it, in this process.
        receiver: how such servers take weights.
        max_lora_rank: of the adapters that the servers take; None where they take none.

    Raises:
        ConfigError: the chosen way is none for this policy, these servers or this machine; says why, and which is.
        EngineError: the policy's weights are none that a server could have.
    """
    name = _choose(config, policy, receiver, max_lora_rank)
    delivery = _open(name, config, policy, dialect, receiver)
    probe = ParityProbe(policy, dialect, config) if config.probe else None
    return ServerWeightSync(delivery, receiver, dialect, probe, config)


def _choose(config: WeightSyncConfig, policy: Policy, receiver: Receiver, max_lora_rank: int | None) -> str:
    if config.transport != "auto":
        _check(config.transport, policy, receiver, max_lora_rank)
        return config.transport
    if "adapter" in receiver.transports and not _adapter_refusal(policy, max_lora_rank):
        return "adapter"
    num_bytes = PolicyWeights(policy).num_bytes(torch.bfloat16)
    fits = SHARED_MEMORY.is_dir() and num_bytes < room(SHARED_MEMORY, in_memory=True)
    return "shared_memory" if fits and config.directory is None else "disk"


def _check(name: str, policy: Policy, receiver: Receiver, max_lora_rank: int | None) -> None:
    if name not in receiver.transports:
        raise ConfigError(f"{SETTING}={name}: {receiver.refusal(name)}")
    if name == "adapter" and (reason := _adapter_refusal(policy, max_lora_rank)):
        raise ConfigError(f"{SETTING}=adapter: {reason}; use shared_memory or disk, which send merged weights")
    if name == "shared_memory" and not SHARED_MEMORY.is_dir():
        raise ConfigError(f"{SETTING}=shared_memory needs {SHARED_MEMORY}, which this machine has not; use disk")
    if name in ("nccl", "cuda_ipc") and policy.device.type != "cuda":
        raise ConfigError(
            f"{SETTING}={name} sends from the memory of a GPU, and the policy lies on {policy.device.type}; use "
            "shared_memory, disk or gloo"
        )


def _adapter_refusal(policy: Policy, max_lora_rank: int | None) -> str:
    reason = not_servable(policy)
    if reason:
        return reason
    if max_lora_rank is None:
        return "the servers take no adapters (engine.max_loras)"
    rank = policy.model.peft_config["default"].r
    return f"its rank {rank} is above the servers' engine.max_lora_rank={max_lora_rank}" if rank > max_lora_rank else ""


def _open(name: str, config: WeightSyncConfig, policy: Policy, dialect: Dialect, receiver: Receiver) -> Delivery:
    dtype = None if config.dtype == "auto" else getattr(torch, config.dtype)
    terms = Terms(dtype, config.bucket_mb << 20, config.timeout_seconds, config.checksums)
    if name == "adapter":
        place = WeightsPlace(config.directory, in_memory=False)
        return AdapterDelivery(policy, dialect, place, terms, must_be_local=config.directory is None)
    weights = PolicyWeights(policy)
    if name in ("shared_memory", "disk"):
        in_memory = name == "shared_memory"
        parent: Path | None = SHARED_MEMORY if in_memory else config.directory
        place = WeightsPlace(parent, in_memory=in_memory)
        return FileDelivery(weights, receiver, place, terms, must_be_local=in_memory or parent is None)
    if name == "cuda_ipc":
        return DirectDelivery(weights, receiver, CudaIpcCourier(), terms, policy.device)
    device = policy.device if name == "nccl" else torch.device("cpu")
    courier = GroupCourier(name, config.host, receiver, config.timeout_seconds)
    return DirectDelivery(weights, receiver, courier, terms, device)
